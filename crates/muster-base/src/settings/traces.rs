//! Where traces go.

use serde::{Deserialize, Serialize};

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceSettings {
    /// Where traces are exported to by OTLP; where OpenTelemetry's own variables say when unset, and
    /// nowhere if they do not.
    pub otlp_endpoint: Option<String>,
}

impl TraceSettings {
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "every concern is checked alike, and the exporter checks its endpoint"
    )]
    pub(super) fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
