//! The SDK's credentials, for object_store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use super::trouble::failed;

/// Credentials are renewed this long before they expire: EC2 has new ones five minutes ahead.
const RENEW_AHEAD: Duration = Duration::from_secs(300);

/// Hands the SDK's credentials to object_store, which asks for each request: they are held, since
/// asking anew costs calls to the instance's metadata or to STS.
#[derive(Debug)]
pub struct Credentials {
    provider: SharedCredentialsProvider,
    held: Mutex<Option<Held>>,
}

#[derive(Clone, Debug)]
struct Held {
    credential: Arc<AwsCredential>,
    /// `None`: they do not expire.
    expiry: Option<SystemTime>,
}

impl Credentials {
    /// Credentials that are asked for when they are first needed.
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            held: Mutex::default(),
        }
    }
}

impl Held {
    fn outlasts(&self, time: SystemTime) -> bool {
        self.expiry.is_none_or(|expiry| expiry > time)
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|h| h.outlasts(now + RENEW_AHEAD)) {
            return Ok(Arc::clone(&held.credential));
        }
        match self.provider.provide_credentials().await {
            Ok(found) => {
                let credential = Arc::new(AwsCredential {
                    key_id: found.access_key_id().to_owned(),
                    secret_key: found.secret_access_key().to_owned(),
                    token: found.session_token().map(str::to_owned),
                });
                *held = Some(Held {
                    credential: Arc::clone(&credential),
                    expiry: found.expiry(),
                });
                Ok(credential)
            }
            Err(error) => match held.as_ref().filter(|h| h.outlasts(now)) {
                Some(held) => {
                    failed("the credentials could not be renewed yet", &error);
                    Ok(Arc::clone(&held.credential))
                }
                None => Err(object_store::Error::Unauthenticated {
                    path: String::new(),
                    source: Box::new(error),
                }),
            },
        }
    }
}
