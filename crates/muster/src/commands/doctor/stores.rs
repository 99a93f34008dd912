//! The buckets: whether they are there, and what may be done in them.
//!
//! Everything is tried with one small object of the doctor's own, `doctor-<uuid>`, which is deleted
//! again where that is allowed; the audit log, with an entry.

use std::sync::Arc;

use futures::TryStreamExt;
use muster_jobs::keys::{
    AUDIT_PREFIX, ENROLLED_PREFIX, GALLERY_PREFIX, KEYS_PREFIX, STATUS_PREFIX, segments_prefix,
};
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use uuid::Uuid;

use super::access::Context;
use super::policy::{On, grants};
use super::{Found, Trials};
use muster_base::audit::{Action, AuditLog, Entry, Who};
use muster_base::aws::{self, Trouble};
use muster_base::settings::S3Url;

/// What the doctor's object holds.
const BODY: &str = "muster doctor was here";
/// An entity tag that no object has.
const NO_ETAG: &str = "\"00000000000000000000000000000000\"";

/// The bucket of the photographs.
pub(super) async fn input(context: &Context<'_>) -> Found {
    photographs_or_results(context, &context.settings.storage.input_store, On::Input).await
}

/// The bucket of the results.
pub(super) async fn output(context: &Context<'_>) -> Found {
    photographs_or_results(context, &context.settings.storage.output_store, On::Output).await
}

/// The gallery, and what the controller knows.
pub(super) async fn state(context: &Context<'_>) -> Found {
    let Some(place) = &context.settings.storage.state_store else {
        return Found::Skipped("it is on this machine".to_owned());
    };
    let tried = async {
        let mut bucket = Bucket::open(context, place)?;
        let listed = bucket.list(On::State).await?;
        let segments = segments_prefix(GALLERY_PREFIX);
        for (on, part) in [
            (On::Gallery, GALLERY_PREFIX),
            (On::Gallery, &segments),
            (On::Enrolled, ENROLLED_PREFIX),
            (On::Keys, KEYS_PREFIX),
            (On::Status, STATUS_PREFIX),
        ] {
            let key = Path::from_iter([part, &*bucket.name]);
            let put = bucket.put(on, &key, PutMode::Create).await?;
            let mut tried = bucket.get(on, &key, listed).await;
            if put {
                tried = tried.and(bucket.conditions(&key).await);
                // Whatever was found: nothing is to be left behind.
                tried = tried.and(bucket.delete(on, &key).await);
            }
            tried?;
        }
        bucket.audit().await?;
        Ok(bucket.trials.found())
    };
    told(context, place, tried.await).await
}

async fn photographs_or_results(context: &Context<'_>, place: &Option<S3Url>, on: On) -> Found {
    let Some(place) = place else {
        return Found::Skipped("it is on this machine".to_owned());
    };
    let tried = async {
        let mut bucket = Bucket::open(context, place)?;
        let listed = bucket.list(on).await?;
        let key = Path::from(&*bucket.name);
        let put = bucket.put(on, &key, PutMode::Overwrite).await?;
        let mut tried = bucket.get(on, &key, listed).await;
        if put {
            tried = tried.and(bucket.delete(on, &key).await);
        }
        tried?;
        Ok(bucket.trials.found())
    };
    told(context, place, tried.await).await
}

/// Says plainly that there is no such bucket, or which region it is in.
async fn told(context: &Context<'_>, place: &S3Url, tried: Result<Found, Found>) -> Found {
    let found = match tried {
        Ok(found) | Err(found) => found,
    };
    match found {
        Found::Amiss {
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
            Found::Amiss {
                detail,
                remedy,
                trouble: Some(Trouble::Region),
            }
        }
        Found::Amiss {
            trouble: Some(Trouble::Missing),
            remedy,
            ..
        } => Found::Amiss {
            detail: format!("there is no bucket {}", place.bucket),
            remedy,
            trouble: Some(Trouble::Missing),
        },
        found => found,
    }
}

/// A bucket that things are tried in.
struct Bucket<'a> {
    context: &'a Context<'a>,
    store: Arc<dyn ObjectStore>,
    /// How findings name it.
    place: String,
    /// What the doctor's object is called.
    name: String,
    trials: Trials,
}

impl<'a> Bucket<'a> {
    fn open(context: &'a Context<'a>, place: &S3Url) -> Result<Self, Found> {
        let store = aws::bucket(context.config, place)
            .map_err(|error| Found::failed(place, error.as_ref()))?;
        Ok(Self {
            context,
            store,
            place: place.to_string(),
            name: format!("doctor-{}", Uuid::now_v7().simple()),
            trials: Trials::default(),
        })
    }

    /// Lists, where a part does; whether it may.
    async fn list(&mut self, on: On) -> Result<bool, Found> {
        let grants = grants(self.context.parts, on, "s3:ListBucket");
        if grants.is_empty() {
            return Ok(false);
        }
        let listed = self.store.list(None).try_next().await;
        let answer = match &listed {
            Ok(_) => Ok(()),
            Err(error) => Err(error as _),
        };
        self.trials.take(&grants, &self.place, answer)
    }

    /// Writes the doctor's object, where a part writes; whether it did.
    async fn put(&mut self, on: On, key: &Path, mode: PutMode) -> Result<bool, Found> {
        let grants = grants(self.context.parts, on, "s3:PutObject");
        if grants.is_empty() {
            return Ok(false);
        }
        let put = self.write(key, mode).await;
        let answer = match &put {
            Ok(()) => Ok(()),
            Err(error) => Err(error as _),
        };
        self.trials.take(&grants, &self.on(key), answer)
    }

    /// Reads the doctor's object, where a part reads. One that is not there says as much, as long as
    /// the bucket may be listed: S3 answers 403 otherwise, permitted or not.
    async fn get(&mut self, on: On, key: &Path, listed: bool) -> Result<(), Found> {
        let grants = grants(self.context.parts, on, "s3:GetObject");
        if grants.is_empty() {
            return Ok(());
        }
        let got = self.store.get(key).await;
        let answer = match &got {
            Ok(_) => Ok(()),
            Err(error @ Error::NotFound { .. }) if Trouble::of(error).is_none() => Ok(()),
            Err(error) if !listed && Trouble::of(error) == Some(Trouble::Denied) => {
                self.trials
                    .notes
                    .push("s3:GetObject can not be told without s3:ListBucket".to_owned());
                return Ok(());
            }
            Err(error) => Err(error as _),
        };
        self.trials.take(&grants, &self.on(key), answer)?;
        Ok(())
    }

    /// Writes an entry into the audit log, where a part does. Nobody may delete it, so it is a real
    /// one, which says what it is.
    async fn audit(&mut self) -> Result<(), Found> {
        let grants = grants(self.context.parts, On::Audit, "s3:PutObject");
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
        self.trials.take(&grants, &place, answer)?;
        Ok(())
    }

    /// Deletes the doctor's object again.
    async fn delete(&mut self, on: On, key: &Path) -> Result<(), Found> {
        let grants = grants(self.context.parts, on, "s3:DeleteObject");
        let deleted = self.store.delete(key).await;
        let answer = match &deleted {
            Ok(()) => Ok(()),
            Err(error) => Err(error as _),
        };
        self.trials.take(&grants, &self.on(key), answer)?;
        Ok(())
    }

    /// Writes what is there once more, on conditions that do not hold. The gallery's versions and
    /// the controller's lease rest on the refusals.
    async fn conditions(&self, key: &Path) -> Result<(), Found> {
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
                    return Err(Found::amiss(
                        format!("{} ignores {header}", self.place),
                        "use a server with conditional writes, as S3 has them: enrolments would \
                         be lost on this one",
                    ));
                }
                Err(error) => {
                    return Err(Found::failed(
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
        let folder = key.as_ref().strip_suffix(&*self.name).unwrap_or_default();
        format!("{}/{folder}*", self.place)
    }
}
