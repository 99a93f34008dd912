//! Which trace a message belongs to: W3C Trace Context, level 1, `traceparent`.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::attributes::Attributes;

/// The header, and the message attribute, that carries the trace, as W3C Trace Context names it.
pub const TRACEPARENT: &str = "traceparent";

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// One span of one trace, as `traceparent` carries it: `00-<trace id>-<span id>-<flags>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

/// Why a text is not a `traceparent`.
#[derive(Debug, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct NoTraceParent;

impl TraceParent {
    /// The beginning of a new trace, not sampled.
    #[expect(
        clippy::new_without_default,
        reason = "a default that differs each time misleads"
    )]
    pub fn new() -> Self {
        Self {
            trace: Uuid::now_v7().as_u128(),
            span: fresh_span(),
            flags: 0,
        }
    }

    /// A span that a recorder has begun. Neither id is zero.
    pub fn of_span(trace: u128, span: u64, sampled: bool) -> Self {
        Self {
            trace,
            span,
            flags: if sampled { SAMPLED } else { 0 },
        }
    }

    /// The span that a message belongs to, where it says so.
    pub fn of_message(attributes: &Attributes) -> Option<Self> {
        attributes.get(TRACEPARENT)?.parse().ok()
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            span: fresh_span(),
            ..self
        }
    }

    /// The trace's id.
    pub fn trace(&self) -> u128 {
        self.trace
    }

    /// The span's id.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Whether whoever began the trace records it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What a message's attributes say of the trace.
    pub fn to_attribute(self) -> (String, String) {
        (TRACEPARENT.to_owned(), self.to_string())
    }

    /// The trace's id, as it stands in logs.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// The random half of a UUIDv7: never zero, since its variant bits are not.
fn fresh_span() -> u64 {
    Uuid::now_v7().as_u64_pair().1
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.span, self.flags
        )
    }
}

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let hex = |part: Option<&str>, digits: usize| {
            part.filter(|part| {
                part.len() == digits
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
            .and_then(|part| u128::from_str_radix(part, 16).ok())
            .ok_or(NoTraceParent)
        };
        let mut parts = text.split('-');
        let version = hex(parts.next(), 2)?;
        let (trace, span, flags) = (
            hex(parts.next(), 32)?,
            hex(parts.next(), 16)?,
            hex(parts.next(), 2)?,
        );
        if version != 0 || trace == 0 || span == 0 || parts.next().is_some() {
            return Err(NoTraceParent);
        }
        Ok(Self {
            trace,
            span: span as u64,
            flags: flags as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example_is_read_and_written_back() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent: TraceParent = text.parse().unwrap();
        assert_eq!(parent.to_string(), text);
        let child = parent.child();
        assert_eq!(child.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(child.to_string(), text);
        assert_eq!(child.to_string().parse::<TraceParent>().unwrap(), child);
        let same = TraceParent::of_span(parent.trace(), parent.span(), parent.is_sampled());
        assert_eq!(same, parent);
        let attributes = Attributes::from([parent.to_attribute()]);
        assert_eq!(TraceParent::of_message(&attributes), Some(parent));
        assert_eq!(TraceParent::of_message(&Attributes::new()), None);
        assert!(!TraceParent::new().is_sampled());
    }

    #[test]
    fn what_is_not_one_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(text.parse::<TraceParent>().is_err(), "{text}");
        }
        let fresh = TraceParent::new();
        assert_eq!(fresh.to_string().parse::<TraceParent>().unwrap(), fresh);
    }
}
