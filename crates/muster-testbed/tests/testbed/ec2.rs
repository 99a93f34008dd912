//! What the server was completed with, as the SDK sees it.

use std::time::{Duration, Instant};

use aws_sdk_ec2::{
    Client,
    error::SdkError,
    operation::run_instances::{RunInstancesError, builders::RunInstancesFluentBuilder},
    types::{InstanceStateName, LaunchTemplateSpecification, RequestLaunchTemplateData},
};
use muster_testbed::moto::{self, Pool, Server, Transitions};

use crate::{code, unique};

fn client(server: &Server) -> Client {
    crate::ec2_client(server.endpoint())
}

async fn template(ec2: &Client) -> String {
    let name = unique("template");
    let data = RequestLaunchTemplateData::builder()
        .image_id("ami-12345678")
        .instance_type("m7i.large".into())
        .user_data("ZWNobyBoaQ==")
        .build();
    ec2.create_launch_template()
        .launch_template_name(&name)
        .launch_template_data(data)
        .send()
        .await
        .expect("make the launch template");
    name
}

fn launch(ec2: &Client, template: &str, most: i32) -> RunInstancesFluentBuilder {
    let template = LaunchTemplateSpecification::builder()
        .launch_template_name(template)
        .build();
    ec2.run_instances()
        .launch_template(template)
        .min_count(1)
        .max_count(most)
}

async fn launched(builder: RunInstancesFluentBuilder) -> Vec<String> {
    let reservation = builder.send().await.expect("launch");
    let mut ids: Vec<String> = reservation
        .instances()
        .iter()
        .map(|instance| instance.instance_id().expect("an id").to_owned())
        .collect();
    ids.sort();
    ids
}

async fn refused(builder: RunInstancesFluentBuilder) -> SdkError<RunInstancesError> {
    builder.send().await.expect_err("refused")
}

async fn state(ec2: &Client, id: &str) -> InstanceStateName {
    let described = ec2.describe_instances().instance_ids(id).send().await;
    let described = described.expect("describe the instance");
    let instance = &described.reservations()[0].instances()[0];
    let state = instance.state().and_then(|state| state.name());
    state.expect("a state").clone()
}

#[tokio::test]
async fn a_client_token_launches_once() {
    let Some(server) = moto::server() else {
        return;
    };
    let ec2 = client(server);
    let template = template(&ec2).await;
    let token = unique("token");
    let request = || launch(&ec2, &template, 3).client_token(&token);
    let (one, two) = tokio::join!(launched(request()), launched(request()));
    assert_eq!(one.len(), 3);
    assert_eq!(one, two);
    assert_eq!(launched(request()).await, one);

    let other = refused(request().max_count(2)).await;
    assert_eq!(code(&other), "IdempotentParameterMismatch");
    assert_ne!(launched(launch(&ec2, &template, 3)).await, one);
}

#[tokio::test]
async fn a_launch_gets_what_there_is_capacity_for() {
    let Some(server) = moto::server() else {
        return;
    };
    let ec2 = client(server);
    let template = template(&ec2).await;
    let pool = Pool {
        launch_template: Some(template.clone()),
        ..Pool::default()
    };
    server.set_capacity(&pool, Some(2));
    let two = launched(launch(&ec2, &template, 5)).await;
    assert_eq!(two.len(), 2);
    let none = refused(launch(&ec2, &template, 5)).await;
    assert_eq!(code(&none), "InsufficientInstanceCapacity");
    let status = none.raw_response().expect("an answer").status();
    assert!(status.is_server_error(), "{status}");

    let terminated = ec2.terminate_instances().instance_ids(&two[0]).send().await;
    terminated.expect("terminate");
    assert_eq!(launched(launch(&ec2, &template, 5)).await.len(), 1);
    server.set_capacity(&pool, None);
    assert_eq!(launched(launch(&ec2, &template, 5)).await.len(), 5);
}

#[tokio::test]
async fn states_are_passed_through() {
    let Some(server) = Server::start() else {
        return;
    };
    let ec2 = client(&server);
    let template = template(&ec2).await;
    server.set_transitions(Transitions {
        pending: Duration::from_secs(3600),
        ..Transitions::default()
    });
    let waiting = launched(launch(&ec2, &template, 1)).await.remove(0);
    assert_eq!(state(&ec2, &waiting).await, InstanceStateName::Pending);
    let stop = ec2.stop_instances().instance_ids(&waiting).send().await;
    assert_eq!(
        code(&stop.expect_err("it does not run")),
        "IncorrectInstanceState"
    );

    server.set_transitions(Transitions {
        stopping: Duration::from_secs(3600),
        shutting_down: Duration::from_secs(3600),
        ..Transitions::default()
    });
    let id = launched(launch(&ec2, &template, 1)).await.remove(0);
    assert_eq!(state(&ec2, &id).await, InstanceStateName::Running);
    let stop = ec2.stop_instances().instance_ids(&id).send().await;
    stop.expect("stop");
    assert_eq!(state(&ec2, &id).await, InstanceStateName::Stopping);
    let start = ec2.start_instances().instance_ids(&id).send().await;
    assert_eq!(
        code(&start.expect_err("it has not stopped")),
        "IncorrectInstanceState"
    );
    let end = ec2.terminate_instances().instance_ids(&id).send().await;
    end.expect("terminate");
    assert_eq!(state(&ec2, &id).await, InstanceStateName::ShuttingDown);
}

#[tokio::test]
async fn a_start_renews_the_launch_time() {
    let Some(server) = moto::server() else {
        return;
    };
    let ec2 = client(server);
    let template = template(&ec2).await;
    let id = launched(launch(&ec2, &template, 1)).await.remove(0);
    let launch_time = async || {
        let described = ec2.describe_instances().instance_ids(&id).send().await;
        let described = described.expect("describe the instance");
        let instance = &described.reservations()[0].instances()[0];
        *instance.launch_time().expect("a launch time")
    };
    let first = launch_time().await;
    let asked = Instant::now();
    // Launch times are whole seconds.
    while launch_time().await == first {
        assert!(asked.elapsed() < Duration::from_secs(30));
        let stop = ec2.stop_instances().instance_ids(&id).send().await;
        stop.expect("stop");
        let start = ec2.start_instances().instance_ids(&id).send().await;
        start.expect("start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn pages_survive_that_instances_leave_the_filter() {
    let Some(server) = moto::server() else {
        return;
    };
    let ec2 = client(server);
    let template = template(&ec2).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.append(&mut launched(launch(&ec2, &template, 1)).await);
    }
    let page = async |token: Option<String>| {
        let running = aws_sdk_ec2::types::Filter::builder()
            .name("instance-state-name")
            .values("running")
            .build();
        let own = aws_sdk_ec2::types::Filter::builder()
            .name("instance-id")
            .set_values(Some(ids.clone()))
            .build();
        let request = ec2.describe_instances().filters(running).filters(own);
        let answer = request.max_results(1).set_next_token(token).send().await;
        let answer = answer.expect("describe a page");
        let id = answer.reservations()[0].instances()[0].instance_id();
        let id = id.expect("an id").to_owned();
        (id, answer.next_token().map(str::to_owned))
    };
    let (first, token) = page(None).await;
    let end = ec2.terminate_instances().instance_ids(&first).send().await;
    end.expect("terminate");
    let (second, token) = page(token).await;
    let (third, end) = page(token).await;
    assert_eq!([first, second, third].as_slice(), ids);
    assert_eq!(end, None);
}
