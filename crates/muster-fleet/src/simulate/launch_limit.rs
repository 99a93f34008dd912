//! How many instances a service lets anyone launch.

/// A bucket of tokens, full when the trace begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenBucket {
    /// Tokens in a full one.
    pub size: f64,
    /// Tokens that come back each second.
    pub per_s: f64,
}

/// How EC2 limits RunInstances ("Request throttling for the Amazon EC2 API").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaunchLimit {
    /// A token for each call: EC2 calls them request tokens.
    pub calls: TokenBucket,
    /// A token for each instance: resource tokens.
    pub instances: TokenBucket,
}

/// For so long after a refusal nothing is launched; the fleet on EC2 begins with as long.
const HELD_S: f64 = 1.0;

/// The buckets at one time.
pub(super) struct LaunchTokens {
    limit: Option<LaunchLimit>,
    calls: f64,
    instances: f64,
    at_s: f64,
    held_until_s: f64,
    /// `(second, instances)` of each refusal: instances that had no token, none where the call had none.
    pub(super) refused: Vec<(f64, u32)>,
}

impl LaunchTokens {
    pub(super) fn new(limit: Option<LaunchLimit>) -> Self {
        Self {
            limit,
            calls: limit.map_or(0.0, |limit| limit.calls.size),
            instances: limit.map_or(0.0, |limit| limit.instances.size),
            at_s: 0.0,
            held_until_s: 0.0,
            refused: Vec::new(),
        }
    }

    /// Asks for instances in one call, and returns how many are launched.
    ///
    /// A call asks for at least one instance and at most so many; AWS does not say whether one that asks
    /// for more than there are tokens is refused as a whole. Here it gets what there are.
    pub(super) fn take(&mut self, now_s: f64, instances: u32) -> u32 {
        let Some(limit) = self.limit else {
            return instances;
        };
        if instances == 0 || now_s < self.held_until_s {
            return 0;
        }
        let refilled = |left: f64, bucket: TokenBucket| {
            (left + (now_s - self.at_s) * bucket.per_s).min(bucket.size)
        };
        self.calls = refilled(self.calls, limit.calls);
        self.instances = refilled(self.instances, limit.instances);
        self.at_s = now_s;
        let called = self.calls >= 1.0;
        let granted = if called {
            instances.min(self.instances as u32)
        } else {
            0
        };
        if called {
            self.calls -= 1.0;
            self.instances -= f64::from(granted);
        }
        if granted < instances {
            let without = if called { instances - granted } else { 0 };
            self.refused.push((now_s, without));
            self.held_until_s = now_s + HELD_S;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(calls: (f64, f64), instances: (f64, f64)) -> LaunchTokens {
        let bucket = |(size, per_s)| TokenBucket { size, per_s };
        LaunchTokens::new(Some(LaunchLimit {
            calls: bucket(calls),
            instances: bucket(instances),
        }))
    }

    #[test]
    fn instances_are_launched_for_what_the_bucket_holds_and_what_has_come_back() {
        let mut tokens = tokens((100.0, 100.0), (3.0, 0.5));
        assert_eq!(tokens.take(0.0, 5), 3);
        assert_eq!(
            tokens.take(0.5, 5),
            0,
            "nothing is asked for within a second"
        );
        assert_eq!(tokens.take(1.0, 5), 0);
        assert_eq!(tokens.take(2.0, 5), 1);
        assert_eq!(tokens.take(6.0, 1), 1);
        // One is left of two, and the bucket is full again after four seconds more.
        assert_eq!(tokens.take(60.0, 9), 3);
        assert_eq!(tokens.refused, [(0.0, 2), (1.0, 5), (2.0, 4), (60.0, 6)]);
    }

    #[test]
    fn a_call_takes_a_token_of_its_own() {
        let mut tokens = tokens((2.0, 1.0), (1000.0, 2.0));
        let granted = [0.0, 0.05, 0.1, 0.15, 1.1, 1.15].map(|at_s| tokens.take(at_s, 10));
        // Of the third call's second, 1.1 tokens have come back.
        assert_eq!(granted, [10, 10, 0, 0, 10, 0]);
        assert_eq!(tokens.refused, [(0.1, 0), (1.15, 0)]);
    }

    #[test]
    fn without_a_limit_everything_is_launched() {
        assert_eq!(LaunchTokens::new(None).take(0.0, 5000), 5000);
    }
}
