//! A call as the EC2 Query API takes it: a form of names and values.

use form_urlencoded::Serializer;

/// The version of the API (EC2 API Reference).
const VERSION: &str = "2016-11-15";

/// One call and its parameters.
#[derive(Debug)]
pub(crate) struct Query {
    action: &'static str,
    parameters: Vec<(String, String)>,
}

impl Query {
    pub fn new(action: &'static str) -> Self {
        Self {
            action,
            parameters: Vec::new(),
        }
    }

    pub fn action(&self) -> &'static str {
        self.action
    }

    /// Adds a parameter.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a parameter that may be absent.
    pub fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds a list: `<name>.1`, `<name>.2` and so on.
    pub fn with_list<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let numbered = (1..).zip(values);
        numbered.fold(self, |query, (n, value)| {
            query.with(&format!("{name}.{n}"), value)
        })
    }

    /// Adds the `n`th filter of a listing, from 1.
    pub fn with_filter(self, n: usize, name: &str, values: &[&str]) -> Self {
        self.with(&format!("Filter.{n}.Name"), name)
            .with_list(&format!("Filter.{n}.Value"), values.iter().copied())
    }

    /// Adds tags below `prefix`.
    pub fn with_tags(self, prefix: &str, tags: &[(&str, &str)]) -> Self {
        let numbered = (1..).zip(tags);
        numbered.fold(self, |query, (n, (key, value))| {
            query
                .with(&format!("{prefix}Tag.{n}.Key"), key)
                .with(&format!("{prefix}Tag.{n}.Value"), value)
        })
    }

    /// Asks only whether the call would be allowed.
    pub fn dry_run(self) -> Self {
        self.with("DryRun", "true")
    }

    /// Writes the form that is sent.
    pub fn to_form(&self) -> String {
        Serializer::new(String::new())
            .append_pair("Action", self.action)
            .append_pair("Version", VERSION)
            .extend_pairs(&self.parameters)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_filters_and_tags_are_numbered_from_one() {
        let query = Query::new("DescribeInstances")
            .with_filter(1, "instance-state-name", &["pending", "running"])
            .with_list("InstanceId", ["i-1", "i-2"])
            .with_tags("TagSpecification.1.", &[("a key", "a&b=c")])
            .with_some("SubnetId", None)
            .dry_run();
        let form = query.to_form();
        let pairs: Vec<_> = form_urlencoded::parse(form.as_bytes()).collect();
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(
            pairs,
            [
                ("Action", "DescribeInstances"),
                ("Version", "2016-11-15"),
                ("Filter.1.Name", "instance-state-name"),
                ("Filter.1.Value.1", "pending"),
                ("Filter.1.Value.2", "running"),
                ("InstanceId.1", "i-1"),
                ("InstanceId.2", "i-2"),
                ("TagSpecification.1.Tag.1.Key", "a key"),
                ("TagSpecification.1.Tag.1.Value", "a&b=c"),
                ("DryRun", "true"),
            ]
        );
    }

    proptest! {
        /// Whatever a value holds, it is one parameter and is read as it was written.
        #[test]
        fn every_value_survives_the_form(values in prop::collection::vec(any::<String>(), 0..5)) {
            let list = values.iter().map(String::as_str);
            let form = Query::new("StopInstances").with_list("InstanceId", list).to_form();
            prop_assert!(form.is_ascii());
            let read: Vec<_> = form_urlencoded::parse(form.as_bytes()).skip(2).collect();
            prop_assert_eq!(read.len(), values.len());
            for (n, (name, value)) in read.into_iter().enumerate() {
                prop_assert_eq!(name, format!("InstanceId.{}", n + 1));
                prop_assert_eq!(value.as_ref(), values[n].as_str());
            }
        }
    }
}
