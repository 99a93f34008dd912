//! `muster keys`: make, list and revoke API keys, directly in the state store.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit};
use muster_jobs::{now_ms, unprintable};
use serde_json::json;

use muster_base::api_keys::{ApiKey, KeyId, KeyStore, Scope, Token};
use muster_base::audit::{Action, AuditLog, Entry, Who};
use muster_base::backend;
use muster_base::settings::Settings;
use muster_base::{print_error_line, print_line};

use crate::flags::Overrides;

/// Longest name of a key, in characters.
const MAX_NAME_CHARS: usize = 100;

/// Arguments of `muster keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: KeysCommand,
}

impl KeysArgs {
    /// Settings that were given as flags.
    pub fn overrides(&self) -> &Overrides {
        match &self.command {
            KeysCommand::Create(CreateArgs { overrides, .. })
            | KeysCommand::List { overrides }
            | KeysCommand::Revoke { overrides, .. } => overrides,
        }
    }
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key and show it, once
    Create(CreateArgs),
    /// List the keys, without their secrets
    List {
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Revoke a key: within a few seconds no replica takes it any more
    Revoke {
        /// The key's id, the part between the underscores
        id: KeyId,
        #[command(flatten)]
        overrides: Overrides,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    overrides: Overrides,
    /// What it is for
    #[arg(long)]
    name: String,
    /// What it allows; admin is everything
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        value_delimiter = ',',
        required = true
    )]
    scopes: Vec<Scope>,
    /// Requests a second in the long run, of each web replica [default: any number]
    #[arg(long, value_name = "R", value_parser = rate)]
    rate_per_s: Option<f64>,
    /// Requests at once before the rate counts [default: those of one second]
    #[arg(long, value_name = "B", requires = "rate_per_s", value_parser = clap::value_parser!(u32).range(1..))]
    burst: Option<u32>,
    /// When it ends: a time from now (90d, 12h) or a moment (2027-01-31T00:00:00Z) [default: never]
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Timestamp>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("a rate is between 0.001 and 1000000 requests a second".to_owned()),
    }
}

fn expiry(text: &str) -> Result<Timestamp, String> {
    let moment = text.parse().or_else(|_| {
        let span: Span = text.parse()?;
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        now.checked_add(span).map(|then| then.timestamp())
    });
    match moment {
        Ok(moment) if moment > Timestamp::now() => Ok(moment),
        Ok(moment) => Err(format!("{moment} is past")),
        Err(error) => Err(format!(
            "write it as 90d, 12h or 2027-01-31T00:00:00Z ({error})"
        )),
    }
}

/// Runs the command on the state store of the settings.
///
/// # Errors
/// When the store can not be used, or there is no such key.
pub async fn run(args: KeysArgs, settings: &Settings) -> anyhow::Result<()> {
    let state = match args.command {
        // The first key may be made before the first start.
        KeysCommand::Create(_) => backend::state_store(&settings.storage, &settings.aws).await?,
        KeysCommand::List { .. } | KeysCommand::Revoke { .. } => {
            backend::existing_state_store(&settings.storage, &settings.aws).await?
        }
    };
    let log = AuditLog::new(state.clone());
    let keys = KeyStore::new(state);
    match args.command {
        KeysCommand::Create(create_args) => create(create_args, &keys, &log, args.json).await,
        KeysCommand::List { .. } => list(&keys, args.json).await,
        KeysCommand::Revoke { id, .. } => revoke(&id, &keys, &log, args.json).await,
    }
}

async fn create(
    args: CreateArgs,
    keys: &KeyStore,
    log: &AuditLog,
    as_json: bool,
) -> anyhow::Result<()> {
    let name = args.name.trim().to_owned();
    let length = name.chars().count();
    if !(1..=MAX_NAME_CHARS).contains(&length) || unprintable(&name).next().is_some() {
        bail!("the name has {length} characters: give 1 to {MAX_NAME_CHARS}, on one line");
    }
    let token = Token::fresh()?;
    let mut scopes = args.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let expires_at_ms = args
        .expires
        .map(|at| u64::try_from(at.as_millisecond()))
        .transpose()
        .context("an expiry is after 1970")?;
    let key = ApiKey {
        id: token.id.clone(),
        name,
        secret_sha256: token.hash(),
        scopes,
        rate_per_s: args.rate_per_s,
        burst: args.burst,
        created_at_ms: now_ms(),
        expires_at_ms,
    };
    // The entry comes first: a key that nobody wrote down must not be there.
    audit(log, Action::KeyCreated, &key.id).await?;
    keys.create(&key).await?;
    if as_json {
        let mut created = without_hash(&key);
        created["key"] = token.reveal().into();
        print_line!("{created}")?;
    } else {
        print_error_line!(
            "The key of {}, shown this once: send it as Authorization: Bearer …",
            key.name
        );
        print_line!("{}", token.reveal())?;
    }
    Ok(())
}

async fn list(keys: &KeyStore, as_json: bool) -> anyhow::Result<()> {
    let keys = keys.list().await?;
    if as_json {
        let keys: Vec<_> = keys.iter().map(without_hash).collect();
        print_line!("{}", json!({ "keys": keys }))?;
        return Ok(());
    }
    if keys.is_empty() {
        print_line!("no keys: make one with `muster keys create --name NAME --scope SCOPE`")?;
    }
    for key in &keys {
        print_line!("{}", line(key))?;
    }
    Ok(())
}

async fn revoke(id: &KeyId, keys: &KeyStore, log: &AuditLog, as_json: bool) -> anyhow::Result<()> {
    // The key goes first: a log that can not be written must not keep it alive.
    if !keys.revoke(id).await? {
        bail!("there is no key {id}: `muster keys list` shows them");
    }
    audit(log, Action::KeyRevoked, id).await?;
    if as_json {
        print_line!("{}", json!({ "revoked": id }))?;
    } else {
        print_line!("revoked {id}: within a few seconds no replica takes it any more")?;
    }
    Ok(())
}

async fn audit(log: &AuditLog, action: Action, key: &KeyId) -> anyhow::Result<()> {
    let entry = Entry {
        thing: Some(key.to_string()),
        ..Entry::now(Who::account(), action)
    };
    log.append(&[entry]).await
}

/// A key, as JSON without its hash.
fn without_hash(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "rate_per_s": key.rate_per_s,
        "burst": key.burst,
        "created_at_ms": key.created_at_ms,
        "expires_at_ms": key.expires_at_ms,
        "expired": key.expired(),
    })
}

fn line(key: &ApiKey) -> String {
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.text()).collect();
    let date = |ms: u64| {
        let moment = i64::try_from(ms).ok().map(Timestamp::from_millisecond);
        match moment.and_then(Result::ok).map(|at| at.round(Unit::Second)) {
            Some(Ok(at)) => at.to_string(),
            _ => "?".to_owned(),
        }
    };
    let rate = key
        .rate_per_s
        .map(|rate| format!(", {rate} a second, {} at once", key.burst()))
        .unwrap_or_default();
    let expiry = match key.expires_at_ms {
        None => String::new(),
        Some(at) if key.expired() => format!(", expired {}", date(at)),
        Some(at) => format!(", until {}", date(at)),
    };
    format!(
        "{}  {}  {}, made {}{rate}{expiry}",
        key.id,
        scopes.join(","),
        key.name,
        date(key.created_at_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_from_now_or_a_moment() {
        let days = |text| {
            (expiry(text).unwrap().as_second() - Timestamp::now().as_second()) as f64 / 86400.0
        };
        assert!((days("90d") - 90.0).abs() < 0.01);
        assert!((days("12h") - 0.5).abs() < 0.01);
        assert_eq!(
            expiry("2999-01-31T00:00:00Z").unwrap().to_string(),
            "2999-01-31T00:00:00Z"
        );
        for wrong in ["", "soon", "2001-01-31T00:00:00Z", "-3d"] {
            assert!(expiry(wrong).is_err(), "{wrong}");
        }
    }
}
