//! The buckets: whether they are there, and what may be done in them.
//!
//! Everything is tried with one small object of the doctor's own, `doctor-<uuid>`, which is deleted
//! again where that is allowed; the audit log, with an entry.

use std::sync::Arc;

use futures::TryStreamExt;
use muster_jobs::keys::{
    AUDIT_PREFIX, CONTROLLER_LEASE, DELETIONS_PREFIX, ENROLLED_PREFIX, GALLERY_PREFIX, KEYS_PREFIX,
    STATUS_PREFIX, segments_prefix,
};
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use uuid::Uuid;

use super::context::Context;
use super::findings::Outcome;
use super::permissions::Permissions;
use super::policy::{Resource, grants};
use muster_base::audit::{Action, AuditLog, Entry, Who};
use muster_base::aws::{self, Trouble};
use muster_base::settings::{FleetKind, S3Url};

/// What the doctor's object holds.
const BODY: &str = "muster doctor was here";
/// An entity tag that no object has.
const NO_ETAG: &str = "\"00000000000000000000000000000000\"";

/// The bucket of the photographs.
pub(super) async fn input(context: &Context<'_>) -> Outcome {
    photographs_or_results(
        context,
        &context.settings.storage.input_store,
        Resource::Input,
    )
    .await
}

/// The bucket of the results.
pub(super) async fn output(context: &Context<'_>) -> Outcome {
    photographs_or_results(
        context,
        &context.settings.storage.output_store,
        Resource::Output,
    )
    .await
}

/// The gallery, and what the controller knows.
pub(super) async fn state(context: &Context<'_>) -> Outcome {
    let Some(place) = &context.settings.storage.state_store else {
        return Outcome::Skipped("it is on this machine".to_owned());
    };
    let tried = async {
        let mut bucket = BucketCheck::open(context, place)?;
        let listed = bucket.list(Resource::State).await?;
        let segments = segments_prefix(GALLERY_PREFIX);
        for (on, folder) in [
            (Resource::Gallery, GALLERY_PREFIX),
            (Resource::Gallery, &segments),
            (Resource::Enrolled, ENROLLED_PREFIX),
            (Resource::Deletions, DELETIONS_PREFIX),
            (Resource::Keys, KEYS_PREFIX),
            (Resource::Status, STATUS_PREFIX),
        ] {
            let key = Path::from_iter([folder, &*bucket.name]);
            let put = bucket.put(on, &key, PutMode::Create).await?;
            let mut result = bucket.get(on, &key, listed).await;
            if put {
                result = result.and(bucket.conditions(&key).await);
                // Whatever was found: nothing is to be left behind.
                result = result.and(bucket.delete(on, &key).await);
            }
            result?;
        }
        let fleet = &context.settings.fleet;
        if fleet.kind == FleetKind::Ec2 && !fleet.ec2.orphan_timeout.is_zero() {
            let lease = Path::from(CONTROLLER_LEASE);
            bucket.get(Resource::Lease, &lease, listed).await?;
        }
        bucket.audit().await?;
        Ok(bucket.permissions.outcome())
    };
    explained(context, place, tried.await).await
}

async fn photographs_or_results(
    context: &Context<'_>,
    place: &Option<S3Url>,
    on: Resource,
) -> Outcome {
    let Some(place) = place else {
        return Outcome::Skipped("it is on this machine".to_owned());
    };
    let tried = async {
        let mut bucket = BucketCheck::open(context, place)?;
        let listed = bucket.list(on).await?;
        let key = Path::from(&*bucket.name);
        let put = bucket.put(on, &key, PutMode::Overwrite).await?;
        let mut result = bucket.get(on, &key, listed).await;
        if put {
            result = result.and(bucket.delete(on, &key).await);
        }
        result?;
        Ok(bucket.permissions.outcome())
    };
    explained(context, place, tried.await).await
}

/// Says plainly that there is no such bucket, or which region it is in.
async fn explained(
    context: &Context<'_>,
    place: &S3Url,
    result: Result<Outcome, Outcome>,
) -> Outcome {
    let (Ok(outcome) | Err(outcome)) = result;
    match outcome {
        Outcome::Failed {
            detail,
            trouble: Some(Trouble::Region),
            ..
        } => {
            let set = context.config.region().map(ToString::to_string);
            let (detail, remedy) = match aws::region_of(context.config, place).await {
                Some(region) => (
                    format!(
                        "{place} is in {region}, and region is {}",
                        set.unwrap_or_default()
                    ),
                    format!(
                        "set region to {region}, where the queues and instances have to be too"
                    ),
                ),
                None => (detail, Trouble::Region.remedy().to_owned()),
            };
            Outcome::Failed {
                detail,
                remedy,
                trouble: Some(Trouble::Region),
            }
        }
        Outcome::Failed {
            trouble: Some(Trouble::Missing),
            remedy,
            ..
        } => Outcome::Failed {
            detail: format!("there is no bucket {}", place.bucket),
            remedy,
            trouble: Some(Trouble::Missing),
        },
        outcome => outcome,
    }
}

/// The check of one bucket.
struct BucketCheck<'a> {
    context: &'a Context<'a>,
    store: Arc<dyn ObjectStore>,
    /// How findings name it.
    place: String,
    /// What the doctor's object is called.
    name: String,
    permissions: Permissions,
}

impl<'a> BucketCheck<'a> {
    fn open(context: &'a Context<'a>, place: &S3Url) -> Result<Self, Outcome> {
        let store = aws::bucket(context.config, place)
            .map_err(|error| Outcome::of_error(place, error.as_ref()))?;
        Ok(Self {
            context,
            store,
            place: place.to_string(),
            name: format!("doctor-{}", Uuid::now_v7().simple()),
            permissions: Permissions::default(),
        })
    }

    /// Lists, where a role does; whether it may.
    async fn list(&mut self, on: Resource) -> Result<bool, Outcome> {
        let grants = grants(self.context.iam_roles, on, "s3:ListBucket");
        if grants.is_empty() {
            return Ok(false);
        }
        let listed = self.store.list(None).try_next().await;
        let answer = match &listed {
            Ok(_) => Ok(()),
            Err(error) => Err(error as _),
        };
        self.permissions.record(&grants, &self.place, answer)
    }

    /// Writes the doctor's object, where a role writes; whether it did.
    async fn put(&mut self, on: Resource, key: &Path, mode: PutMode) -> Result<bool, Outcome> {
        let grants = grants(self.context.iam_roles, on, "s3:PutObject");
        if grants.is_empty() {
            return Ok(false);
        }
        let put = self.write(key, mode).await;
        let answer = match &put {
            Ok(()) => Ok(()),
            Err(error) => Err(error as _),
        };
        self.permissions.record(&grants, &self.on(key), answer)
    }

    /// Reads the doctor's object, or another, where a role reads. One that is not there says as much, as long as
    /// the bucket may be listed: S3 answers 403 otherwise, permitted or not.
    async fn get(&mut self, on: Resource, key: &Path, listed: bool) -> Result<(), Outcome> {
        let grants = grants(self.context.iam_roles, on, "s3:GetObject");
        if grants.is_empty() {
            return Ok(());
        }
        let got = self.store.get(key).await;
        let answer = match &got {
            Ok(_) => Ok(()),
            Err(error @ Error::NotFound { .. }) if Trouble::of(error).is_none() => Ok(()),
            Err(error) if !listed && Trouble::of(error) == Some(Trouble::Denied) => {
                self.permissions
                    .note("s3:GetObject can not be told without s3:ListBucket");
                return Ok(());
            }
            Err(error) => Err(error as _),
        };
        self.permissions.record(&grants, &self.on(key), answer)?;
        Ok(())
    }

    /// Writes an entry into the audit log, where a role does. Nobody may delete it, so it is a real
    /// one, which says what it is.
    async fn audit(&mut self) -> Result<(), Outcome> {
        let grants = grants(self.context.iam_roles, Resource::Audit, "s3:PutObject");
        if grants.is_empty() {
            return Ok(());
        }
        let log = AuditLog::new(Arc::clone(&self.store));
        let entry = Entry::now(Who::account(), Action::Tried);
        let appended = log.append(&[entry]).await;
        let answer = match &appended {
            Ok(()) => Ok(()),
            Err(error) => Err(error.as_ref()),
        };
        let place = format!("{}/{AUDIT_PREFIX}/*", self.place);
        self.permissions.record(&grants, &place, answer)?;
        Ok(())
    }

    /// Deletes the doctor's object again.
    async fn delete(&mut self, on: Resource, key: &Path) -> Result<(), Outcome> {
        let grants = grants(self.context.iam_roles, on, "s3:DeleteObject");
        let deleted = self.store.delete(key).await;
        let answer = match &deleted {
            Ok(()) => Ok(()),
            Err(error) => Err(error as _),
        };
        self.permissions.record(&grants, &self.on(key), answer)?;
        Ok(())
    }

    /// Writes what is there once more, on conditions that do not hold. The gallery's versions and
    /// the controller's lease rest on the refusals.
    async fn conditions(&self, key: &Path) -> Result<(), Outcome> {
        let stale = UpdateVersion {
            e_tag: Some(NO_ETAG.to_owned()),
            version: None,
        };
        for (mode, header) in [
            (PutMode::Create, "If-None-Match: *"),
            (PutMode::Update(stale), "If-Match"),
        ] {
            match self.write(key, mode).await {
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                Ok(()) => {
                    return Err(Outcome::failed(
                        format!("{} ignores {header}", self.place),
                        "use a server with conditional writes, as S3 has them: enrolments would \
                         be lost on this one",
                    ));
                }
                Err(error) => {
                    return Err(Outcome::of_error(
                        format!("a write with {header} to {}", self.place),
                        &error,
                    ));
                }
            }
        }
        Ok(())
    }

    async fn write(&self, key: &Path, mode: PutMode) -> Result<(), Error> {
        let options = PutOptions::from(mode);
        let body = PutPayload::from_static(BODY.as_bytes());
        self.store.put_opts(key, body, options).await.map(drop)
    }

    fn on(&self, key: &Path) -> String {
        match key.as_ref().strip_suffix(&*self.name) {
            Some(folder) => format!("{}/{folder}*", self.place),
            None => format!("{}/{key}", self.place),
        }
    }
}
