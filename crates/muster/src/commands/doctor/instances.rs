//! EC2: the instances that are there, and whether more may be launched.

use std::error::Error;

use muster_fleet::{Change, Ec2Rehearsal, FleetError};

use super::access::Context;
use super::policy::{Grant, On, grants};
use super::{Found, Trials};
use muster_base::aws::Trouble;

const CHANGES: [(Change, &str); 4] = [
    (Change::Name, "ec2:CreateTags"),
    (Change::Start, "ec2:StartInstances"),
    (Change::Stop, "ec2:StopInstances"),
    (Change::Terminate, "ec2:TerminateInstances"),
];

/// The deployment's instances, and what may be done with one of them: a permission that asks for
/// the deployment's tag can be tried on nothing else.
pub(super) async fn there(context: &Context<'_>) -> (Found, Found) {
    let ec2 = rehearsal(context);
    let mut trials = Trials::default();
    let listed = ec2.instances().await;
    let may_list = grants(context.parts, On::Instances, "ec2:DescribeInstances");
    let taken = trials.take(&may_list, "*", answer(&listed));
    let instances = match (taken, listed) {
        (Ok(_), Ok(instances)) => instances,
        (Ok(_), Err(_)) => return (trials.found(), unknown()),
        (Err(found), _) => return (found, unknown()),
    };
    trials.notes.push(format!(
        "{} instances of the deployment {}",
        instances.len(),
        context.settings.fleet.ec2.deployment
    ));
    let Some(one) = instances.first() else {
        let why = "naming, starting, stopping and terminating can only be tried on an instance of \
                   the deployment, and there is none";
        return (trials.found(), Found::Skipped(why.to_owned()));
    };
    let mut changes = Trials::default();
    for (change, action) in CHANGES {
        let asked = ec2.change(one, change).await;
        let may = grants(context.parts, On::Workers, action);
        if let Err(found) = changes.take(&may, &one.0, answer(&asked)) {
            return (trials.found(), found);
        }
    }
    (trials.found(), changes.found())
}

fn unknown() -> Found {
    Found::Skipped("the instances are not known".to_owned())
}

/// A launch, in each subnet and of each type, as a dry run.
pub(super) async fn launch(context: &Context<'_>) -> Found {
    let settings = &context.settings.fleet.ec2;
    let template = &settings.launch_template;
    if template.is_empty() {
        return Found::amiss(
            "ec2.launch_template is not set",
            "name the launch template: the stack's output WorkerTemplate",
        );
    }
    let version = &settings.launch_template_version;
    let ec2 = rehearsal(context);
    let mut places = Vec::new();
    for place in ec2.places() {
        if let Err(error) = ec2.launch(&place).await {
            let what = format!("{place} from launch template {template} ({version})");
            return refused(context, &what, &error);
        }
        places.push(place.to_string());
    }
    Found::Well(format!(
        "would launch from {template} ({version}): {}",
        places.join(", ")
    ))
}

fn refused(context: &Context<'_>, what: &str, error: &FleetError) -> Found {
    match error {
        FleetError::NotFound { .. } => Found::Amiss {
            detail: error.to_string(),
            remedy:
                "correct ec2.launch_template, ec2.launch_template_version, ec2.subnets or region: \
                     the stack's outputs WorkerTemplate and Subnets"
                    .to_owned(),
            trouble: Some(Trouble::Missing),
        },
        _ if Trouble::of(error) == Some(Trouble::Denied) => {
            let said = muster_base::ErrorChain(error).to_string();
            let mut trials = Trials::default();
            match trials.take(&denied(context, &said), what, Err(error)) {
                Ok(_) => trials.found(),
                Err(found) => found,
            }
        }
        _ => Found::failed(what, error),
    }
}

/// The statements that allow the action which EC2 names: a launch takes several, and it says which
/// one is missing.
fn denied(context: &Context<'_>, said: &str) -> Vec<&'static Grant> {
    let others = ["ec2:CreateTags", "iam:PassRole"];
    let named = others
        .into_iter()
        .find(|action| said.contains(&format!("perform: {action}")));
    grants(
        context.parts,
        On::Launch,
        named.unwrap_or("ec2:RunInstances"),
    )
}

fn rehearsal(context: &Context<'_>) -> Ec2Rehearsal {
    Ec2Rehearsal::new(
        context.config,
        muster_controller::ec2_options(&context.settings.fleet),
    )
}

fn answer<T>(result: &Result<T, FleetError>) -> Result<(), &(dyn Error + 'static)> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}
