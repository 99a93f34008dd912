//! What the controller last published of the fleet, in the state store.

use anyhow::Context;
use muster_fleet::{FleetReport, FleetStatus};
use muster_jobs::now_ms;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::backend::Backend;

/// Reads what the controller last published; all zero where no controller ever ran on this store.
///
/// # Errors
/// When the store does not answer, or holds something else there.
pub async fn read(state: &dyn ObjectStore) -> anyhow::Result<FleetStatus> {
    let bytes = match state.get(&Backend::fleet_status()).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(FleetStatus::default()),
        Err(error) => return Err(error.into()),
    };
    serde_json::from_slice(&bytes).context("read the fleet's status, which is not JSON")
}

/// Publishes what the controller sees now.
///
/// # Errors
/// When the store fails.
pub async fn publish(
    state: &dyn ObjectStore,
    report: FleetReport,
) -> Result<(), object_store::Error> {
    let status = FleetStatus {
        observed_at_ms: now_ms(),
        report,
    };
    let body = serde_json::to_vec(&status).expect("only string keys");
    state
        .put(&Backend::fleet_status(), PutPayload::from(body))
        .await?;
    Ok(())
}
