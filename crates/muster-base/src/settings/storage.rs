//! Where photographs, results and the gallery are kept, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use muster_jobs::keys::ObjectKeys;
use serde::{Deserialize, Serialize};

use super::places::S3Url;
use super::seconds;

/// Where everything is kept, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageSettings {
    /// Where the queue, the photographs, the results and the gallery are kept, as far as no other
    /// place is set for them.
    pub data_dir: PathBuf,
    /// Where photographs are uploaded to; below the data folder when unset.
    pub input_store: Option<S3Url>,
    /// Where results are written to; below the data folder when unset.
    pub output_store: Option<S3Url>,
    /// Where the gallery and what the controller knows are kept; below the data folder when unset.
    pub state_store: Option<S3Url>,
    /// How objects are named: `request`, `prefix-hashed` or `filename`.
    pub object_keys: ObjectKeys,
    /// How long photographs and results are kept on this machine. A bucket has lifecycle rules of
    /// its own.
    #[serde(rename = "retention_s", with = "seconds")]
    pub retention: Duration,
    /// Bytes that photographs may take on this machine together.
    pub max_stored_bytes: u64,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            data_dir: "muster-data".into(),
            input_store: None,
            output_store: None,
            state_store: None,
            object_keys: ObjectKeys::Request,
            retention: Duration::from_secs(3600),
            max_stored_bytes: 50 << 30,
        }
    }
}

impl StorageSettings {
    /// The stores' places with their keys.
    pub(super) fn places(&self) -> [(&Option<S3Url>, &'static str); 3] {
        [
            (&self.input_store, "input_store"),
            (&self.output_store, "output_store"),
            (&self.state_store, "state_store"),
        ]
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let places = self.places();
        for (n, (store, name)) in places.iter().enumerate() {
            for (other, other_name) in &places[..n] {
                if let (Some(store), Some(other)) = (store, other) {
                    anyhow::ensure!(
                        !store.overlaps(other),
                        "{name} is {store} and {other_name} {other}: one must not lie in the other"
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether any store is a bucket.
    pub fn remote(&self) -> bool {
        self.places().iter().any(|(store, _)| store.is_some())
    }
}
