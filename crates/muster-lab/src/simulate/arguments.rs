//! Policies and keep-alive times as they are named on the command line.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use muster_fleet::simulate::TierScenario;
use muster_fleet::{KeepAlive, MOST_INSTANCES, Tier};

/// The longest time that any argument may be.
pub const DAY_S: f64 = 86_400.0;
/// Longest that Muster's planner keeps an instance without work.
const KEEP_ALIVE_AT_MOST: Duration = Duration::from_secs(3600);

/// A policy as it is named on the command line.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyArg {
    Muster,
    RequestsPerInstance(NonZeroU32),
    Keda(Option<f64>),
    Knative(Option<f64>),
    TargetTracking(Option<f64>),
    Fixed(u32),
    BestKnown,
}

impl PolicyArg {
    /// Whether Muster's planner decides.
    pub fn is_musters(&self) -> bool {
        matches!(self, Self::Muster | Self::RequestsPerInstance(_))
    }
}

impl FromStr for PolicyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, setting) = match text.split_once(':') {
            Some((name, setting)) => (name, Some(setting)),
            None => (text, None),
        };
        let number = || -> Result<Option<f64>, String> {
            let Some(text) = setting else { return Ok(None) };
            let number = text.parse::<f64>().ok();
            let positive = number.filter(|n| n.is_finite() && *n > 0.0);
            let positive = positive.ok_or(format!("`{text}` is not a positive number"))?;
            Ok(Some(positive))
        };
        match (name, setting) {
            ("muster", None) => Ok(Self::Muster),
            ("best", None) => Ok(Self::BestKnown),
            ("keda", _) => Ok(Self::Keda(number()?)),
            ("knative", _) => Ok(Self::Knative(number()?)),
            ("target-tracking", _) => Ok(Self::TargetTracking(number()?)),
            ("fixed", Some(setting)) => match setting.parse() {
                Ok(instances) if instances > 0 => Ok(Self::Fixed(instances)),
                _ => Err(format!("`{setting}` is not a number of instances above 0")),
            },
            ("requests-per-instance", Some(setting)) => match setting.parse() {
                Ok(requests) => Ok(Self::RequestsPerInstance(requests)),
                Err(_) => Err(format!("`{setting}` is not a number of requests above 0")),
            },
            ("requests-per-instance", None) => {
                Err("say how many requests: requests-per-instance:N".to_owned())
            }
            ("fixed", None) => Err("say how many instances: fixed:N".to_owned()),
            _ => Err(
                "expected muster, requests-per-instance:N, keda[:queueLength], \
                 knative[:concurrency], target-tracking[:backlog], fixed:N or best"
                    .to_owned(),
            ),
        }
    }
}

/// A tier as it is named on the command line: `NAME:NUMBER:BOOT:PRICE`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierArg(pub TierScenario);

impl FromStr for TierArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || {
            "expected local, stopped or ec2, how many, the seconds of a boot and the price of an \
                           hour, such as local:1:0.4:0"
                .to_owned()
        };
        let parts: Vec<&str> = text.split(':').collect();
        let &[name, number, boot_s, price] = &parts[..] else {
            return Err(expected());
        };
        let tier = match name {
            "local" => Tier::Local,
            "stopped" => Tier::Stopped,
            "ec2" => Tier::Ec2,
            _ => return Err(expected()),
        };
        let several = number.parse().ok();
        let several = several.filter(|n| (1..=MOST_INSTANCES).contains(n));
        let number = several.ok_or(format!(
            "`{number}` is not a number from 1 to {MOST_INSTANCES}"
        ))?;
        let amount = |text: &str, most: f64| {
            let amount = text.parse().ok().filter(|n| (0.0..=most).contains(n));
            amount.ok_or(format!("`{text}` is not a number from 0 to {most}"))
        };
        Ok(Self(TierScenario {
            tier,
            number,
            boot_s: amount(boot_s, DAY_S)?,
            price_per_hour: amount(price, 1e6)?,
        }))
    }
}

/// How long Muster keeps an instance without work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeepAliveArg(pub KeepAlive);

impl FromStr for KeepAliveArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = match text {
            "learned" => {
                return Ok(Self(KeepAlive::Learned {
                    at_most: KEEP_ALIVE_AT_MOST,
                }));
            }
            "zero" => Some(Duration::ZERO),
            seconds => seconds
                .parse()
                .ok()
                .filter(|seconds| (0.0..=DAY_S).contains(seconds))
                .map(Duration::from_secs_f64),
        };
        let time = time.ok_or(format!("expected learned, zero, or 0 to {DAY_S} seconds"))?;
        Ok(Self(KeepAlive::Fixed(time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_named_with_their_setting() {
        for (text, policy) in [
            ("muster", PolicyArg::Muster),
            (
                "requests-per-instance:2",
                PolicyArg::RequestsPerInstance(NonZeroU32::MIN.saturating_add(1)),
            ),
            ("keda", PolicyArg::Keda(None)),
            ("keda:1", PolicyArg::Keda(Some(1.0))),
            ("knative:0.5", PolicyArg::Knative(Some(0.5))),
            ("target-tracking", PolicyArg::TargetTracking(None)),
            ("fixed:3", PolicyArg::Fixed(3)),
            ("best", PolicyArg::BestKnown),
        ] {
            assert_eq!(text.parse(), Ok(policy), "{text}");
        }
        for text in [
            "",
            "fixed",
            "fixed:0",
            "keda:-1",
            "keda:x",
            "muster:2",
            "requests-per-instance",
            "requests-per-instance:0",
            "kubernetes",
        ] {
            assert!(text.parse::<PolicyArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_tier_is_a_name_and_three_numbers() {
        let TierArg(local) = "local:1:0.4:0".parse().unwrap();
        assert_eq!((local.tier, local.number), (Tier::Local, 1));
        assert_eq!((local.boot_s, local.price_per_hour), (0.4, 0.0));
        for text in [
            "",
            "local",
            "local:1:0.4",
            "lambda:1:1:1",
            "ec2:0:26:1",
            "ec2:1:-1:1",
            "ec2:1:1:x",
            "ec2:1:86401:1",
            "ec2:10001:1:1",
        ] {
            assert!(text.parse::<TierArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_keep_alive_is_learned_or_a_time() {
        let fixed = |seconds| Ok(KeepAliveArg(KeepAlive::Fixed(Duration::from_secs(seconds))));
        assert_eq!("zero".parse(), fixed(0));
        assert_eq!("90".parse(), fixed(90));
        assert!("learned".parse::<KeepAliveArg>().is_ok());
        for text in ["-1", "NaN", "never", "86401"] {
            assert!(text.parse::<KeepAliveArg>().is_err(), "{text}");
        }
    }
}
