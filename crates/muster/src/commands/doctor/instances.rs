//! EC2: the instances that are there, and whether more may be launched.

use std::error::Error;

use muster_fleet::{Change, Ec2DryRun, FleetError};

use super::context::Context;
use super::findings::Outcome;
use super::permissions::Permissions;
use super::policy::{Grant, Resource, grants};
use muster_base::aws::Trouble;

const CHANGES: [(Change, &str); 4] = [
    (Change::Name, "ec2:CreateTags"),
    (Change::Start, "ec2:StartInstances"),
    (Change::Stop, "ec2:StopInstances"),
    (Change::Terminate, "ec2:TerminateInstances"),
];

/// The deployment's instances, and what may be done with one of them: a permission that asks for
/// the deployment's tag can be tried on nothing else.
pub(super) async fn there(context: &Context<'_>) -> (Outcome, Outcome) {
    let ec2 = dry_run(context);
    let mut permissions = Permissions::default();
    let listed = ec2.instances().await;
    let may_list = grants(
        context.iam_roles,
        Resource::Instances,
        "ec2:DescribeInstances",
    );
    let recorded = permissions.record(&may_list, "*", answer(&listed));
    let instances = match (recorded, listed) {
        (Ok(_), Ok(instances)) => instances,
        (Ok(_), Err(_)) => return (permissions.outcome(), unknown()),
        (Err(outcome), _) => return (outcome, unknown()),
    };
    if context.settings.fleet.stopped_instances() > 0 {
        let version = ec2.template_version().await;
        let action = "ec2:DescribeLaunchTemplateVersions";
        let may_see = grants(context.iam_roles, Resource::Instances, action);
        // A template that does not exist is the launch's finding.
        let missing = matches!(version, Err(FleetError::NotFound { .. }));
        let answer = if missing { Ok(()) } else { answer(&version) };
        if let Err(outcome) = permissions.record(&may_see, "*", answer) {
            return (outcome, unknown());
        }
    }
    permissions.note(format!(
        "{} instances of the deployment {}",
        instances.len(),
        context.settings.fleet.ec2.deployment
    ));
    let Some(one) = instances.first() else {
        let why = "naming, starting, stopping and terminating can only be tried on an instance of \
                   the deployment, and there is none";
        return (permissions.outcome(), Outcome::Skipped(why.to_owned()));
    };
    let mut changes = Permissions::default();
    for (change, action) in CHANGES {
        let asked = ec2.change(one, change).await;
        let may = grants(context.iam_roles, Resource::Workers, action);
        if let Err(outcome) = changes.record(&may, &one.0, answer(&asked)) {
            return (permissions.outcome(), outcome);
        }
    }
    (permissions.outcome(), changes.outcome())
}

fn unknown() -> Outcome {
    Outcome::Skipped("the instances are not known".to_owned())
}

/// A launch, in each subnet and of each type, as a dry run.
pub(super) async fn launch(context: &Context<'_>) -> Outcome {
    let settings = &context.settings.fleet.ec2;
    let template = &settings.launch_template;
    if template.is_empty() {
        return Outcome::failed(
            "ec2.launch_template is not set",
            "name the launch template: the stack's output WorkerTemplate",
        );
    }
    let version = &settings.launch_template_version;
    let ec2 = dry_run(context);
    let mut pools = Vec::new();
    for pool in ec2.pools() {
        if let Err(error) = ec2.launch(&pool).await {
            let what = format!("{pool} from launch template {template} ({version})");
            return refused(context, &what, &error);
        }
        pools.push(pool.to_string());
    }
    Outcome::Passed(format!(
        "would launch from {template} ({version}): {}",
        pools.join(", ")
    ))
}

fn refused(context: &Context<'_>, what: &str, error: &FleetError) -> Outcome {
    match error {
        FleetError::NotFound { .. } => Outcome::Failed {
            detail: error.to_string(),
            remedy:
                "correct ec2.launch_template, ec2.launch_template_version, ec2.subnets or region: \
                     the stack's outputs WorkerTemplate and Subnets"
                    .to_owned(),
            trouble: Some(Trouble::Missing),
        },
        _ if Trouble::of(error) == Some(Trouble::Denied) => {
            let said = muster_base::ErrorChain(error).to_string();
            let mut permissions = Permissions::default();
            match permissions.record(&denied(context, &said), what, Err(error)) {
                Ok(_) => permissions.outcome(),
                Err(outcome) => outcome,
            }
        }
        _ => Outcome::of_error(what, error),
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
        context.iam_roles,
        Resource::Launch,
        named.unwrap_or("ec2:RunInstances"),
    )
}

fn dry_run(context: &Context<'_>) -> Ec2DryRun {
    Ec2DryRun::new(
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
