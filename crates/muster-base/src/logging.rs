//! Logs: text on a terminal, JSON elsewhere, always on standard error.
//!
//! Every line says which process of many wrote it, once that has an id, and within a request which
//! one that is.

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;

use serde_json::Value;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The field that names a worker.
pub const INSTANCE: &str = "instance.id";
/// The field that names a web tier.
pub const REPLICA: &str = "replica.id";

/// What this process is called, and by which field.
static PROCESS: OnceLock<(&'static str, String)> = OnceLock::new();

/// What is logged where `MUSTER_LOG` does not say: of the decoder of JPEG XL nothing, which calls damaged photographs
/// errors.
const LOGGED: &str = "info,jxl=off";

/// Starts logging. `MUSTER_LOG` filters, as in `muster=debug`; `info` without it.
pub fn start() {
    let filter = EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Where standard error is closed it would say so there, and end the thread.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.with_target(false).map_event_format(Named).init();
    } else {
        let logs = logs.json().flatten_event(true);
        logs.map_event_format(Named).init();
    }
}

/// Has every line from now on say which process wrote it: the first id that it gets stays.
pub fn identify(field: &'static str, id: &str) {
    PROCESS.get_or_init(|| (field, id.to_owned()));
}

/// Lines with the process's id.
struct Named<F>(F);

impl<S, N, T> FormatEvent<S, N> for Named<Format<Full, T>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    T: FormatTime,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Workers write to their parent's terminal; a web tier has its own.
        if let Some((INSTANCE, id)) = PROCESS.get() {
            write!(writer, "{id} ")?;
        }
        self.0.format_event(context, writer, event)
    }
}

impl<S, N, T> FormatEvent<S, N> for Named<Format<Json, T>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    T: FormatTime,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some((field, id)) = PROCESS.get() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        let members = line.strip_prefix('{').unwrap_or(&line);
        write!(
            writer,
            "{{\"{field}\":{},{members}",
            Value::from(id.as_str())
        )
    }
}
