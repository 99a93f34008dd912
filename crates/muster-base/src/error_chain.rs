//! Errors as one line that may be logged: the whole chain, without what a client's file is called.

mod redact;
pub(crate) mod s3;

use std::error::Error;
use std::fmt;

use muster_jobs::Printable;
use redact::without_object_names;
use s3::on_one_line;

/// Shows an error with its sources on one line, each once: some libraries repeat what is below.
/// What they quote of strangers is made printable.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = on_one_line(&without_object_names(self.0));
        let mut source = self.0.source();
        while let Some(error) = source {
            let more = on_one_line(&without_object_names(error));
            if !said.contains(&more) {
                said = format!("{said}: {more}");
            }
            source = error.source();
        }
        write!(f, "{}", Printable(&said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not put: {0}")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn no_object_is_named() {
        let url = "Error performing GET https://s3.eu-central-1.amazonaws.com/in/1/anna.jpg in 2ms";
        let error = object_store::Error::NotFound {
            path: "1/anna.jpg".to_owned(),
            source: url.into(),
        };
        let said = ErrorChain(&error).to_string();
        assert!(!said.contains("anna"), "{said}");
        assert!(
            said.contains("https://s3.eu-central-1.amazonaws.com/in/…"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn no_file_of_an_object_is_named() {
        use object_store::ObjectStoreExt;
        let folder = tempfile::tempdir().unwrap();
        let objects = folder.path().join("objects");
        std::fs::create_dir(&objects).unwrap();
        std::fs::write(objects.join("output"), "in the way").unwrap();
        let store = object_store::local::LocalFileSystem::new_with_prefix(&objects).unwrap();
        let key = "output/1/anna: at home.json".into();
        let error = store.put(&key, "{}".into()).await.unwrap_err();
        let said = ErrorChain(&error).to_string();
        assert!(
            !said.contains("anna") && said.contains("(its file)"),
            "{said}"
        );
        assert!(said.contains("os error"), "{said}");
    }

    #[test]
    fn a_chain_says_everything_once_and_on_one_line() {
        let document = "Error performing GET http://s3 in 2ms - 403: <?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code>\
                        <Message>No.</Message><RequestId>1</RequestId></Error>";
        let error = anyhow::Error::new(Repeats(std::io::Error::other(document)));
        let error = error.context("open the bucket");
        let said = ErrorChain(error.as_ref()).to_string();
        assert_eq!(said, "open the bucket: could not put: AccessDenied: No.");
    }
}
