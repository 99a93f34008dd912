//! The conformance suite on this machine's processes.

use std::sync::Arc;

use muster_fleet::{LocalFleet, LocalFleetOptions};

use crate::conformance::{self, LIMIT};

fn fleet(script: &str) -> Arc<LocalFleet> {
    Arc::new(LocalFleet::new(LocalFleetOptions {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        drain_timeout: LIMIT,
        // These workers say that they are ready, and nothing more.
        hung_timeout: LIMIT,
        nice: 0,
    }))
}

#[tokio::test]
async fn a_batch_lives_and_ends() {
    let worker = "trap 'exit 0' TERM; exec 3<&0; cat <&3 & echo ready; wait";
    conformance::a_batch_lives_and_ends(fleet(worker)).await;
}

#[tokio::test]
async fn a_start_that_fails_is_counted() {
    conformance::a_start_that_fails_is_counted(fleet("exit 1"), async |_| {}).await;
}
