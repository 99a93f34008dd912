//! Which models there are, and which one a gallery is matched by.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use muster_gallery::Gallery;
use muster_jobs::ShippedCalibration;
use muster_recognize::models::Manifest;

use crate::settings::ModelSettings;

/// The manifest, and what a gallery needs to know of it. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    manifest: Arc<Manifest>,
    /// The embedder of the profile that is set: that of a gallery in which nobody was ever enrolled.
    profile: Arc<str>,
    /// The model that the gallery is being changed to.
    next: Arc<Mutex<Option<String>>>,
}

impl Catalogue {
    /// Reads the manifests that the settings name.
    ///
    /// # Errors
    /// When one is wrong, or there is no such profile.
    pub fn open(settings: &ModelSettings) -> anyhow::Result<Self> {
        let manifest = settings.manifest().context("read the models' manifest")?;
        let profile = manifest.profile(&settings.profile);
        let embedder = profile.and_then(|profile| manifest.embedder(profile));
        let embedder = embedder
            .with_context(|| format!("there is no profile {}", settings.profile))?
            .name
            .as_str()
            .into();
        Ok(Self {
            manifest: Arc::new(manifest),
            profile: embedder,
            next: Arc::default(),
        })
    }

    /// The model that faces are compared by.
    pub fn model_of(&self, gallery: &Gallery) -> String {
        gallery.model().unwrap_or(&self.profile).to_owned()
    }

    /// What is shipped with that model.
    pub fn shipped_of(&self, gallery: &Gallery) -> ShippedCalibration {
        let model = self.model_of(gallery);
        match self.manifest.embedder_named(&model) {
            Some(embedder) => ShippedCalibration::from(embedder),
            // A role does not start on such a gallery.
            None => ShippedCalibration {
                cutoff: 1.0,
                impostors: None,
            },
        }
    }

    /// The published cutoff of a model.
    pub fn cutoff(&self, model: &str) -> Option<f32> {
        Some(self.manifest.embedder_named(model)?.cutoff)
    }

    /// The models that a face is to be embedded by, the gallery's first.
    pub fn to_embed(&self, gallery: &Gallery) -> Vec<String> {
        let mut models = vec![self.model_of(gallery)];
        let kept = gallery.kept_models().into_iter().chain(self.next());
        for model in kept {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        models
    }

    /// The embedder that an operator calls so, by its own name or a profile's.
    pub fn find(&self, name: &str) -> Option<&str> {
        let profile = self.manifest.profile(name);
        let of_profile = profile.map(|profile| profile.embedder.as_str());
        let own = self.manifest.embedder_named(name);
        of_profile.or_else(|| own.map(|embedder| embedder.name.as_str()))
    }

    /// Every name that [`Self::find`] finds, sorted.
    pub fn names(&self) -> Vec<&str> {
        let profiles = self.manifest.profiles.iter().map(|p| p.name.as_str());
        let embedders = self.manifest.embedders.iter().map(|e| e.name.as_str());
        let mut names: Vec<&str> = profiles.chain(embedders).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The model that the gallery is being changed to.
    pub fn next(&self) -> Option<String> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.clone()
    }

    /// Has new faces embedded by this model as well.
    pub fn set_next(&self, model: Option<String>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = model;
    }

    /// Holds what this machine knows against the gallery.
    ///
    /// # Errors
    /// Where the faces were enrolled with a model that is in no manifest here.
    pub fn expect(&self, gallery: &Gallery) -> anyhow::Result<()> {
        let Some(model) = gallery.model() else {
            return Ok(());
        };
        anyhow::ensure!(
            self.manifest.embedder_named(model).is_some(),
            "the gallery was enrolled with the model {model}, which is in no manifest of this \
             machine: add its entry again (docs/MODELS.md), or enrol everyone anew in another state \
             store"
        );
        if *model != *self.profile {
            tracing::info!(
                "the gallery is matched by {model}, not by {}, and stays so until \
                 `muster gallery reembed --to {}`",
                self.profile,
                self.profile
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use muster_gallery::{Embeddings, EnrolledFace, Person};
    use muster_jobs::Embedding;

    use super::*;

    fn gallery(model: &str) -> Gallery {
        let embedding = Embedding::normalise(&[1.0, 0.0]).unwrap();
        let face = EnrolledFace::new(String::new(), Embeddings::of(model, embedding), 0);
        Gallery::of(model, vec![Person::new("Anna".to_owned(), vec![face], 0)])
    }

    #[test]
    fn a_gallery_goes_on_with_its_model_if_it_is_known() {
        let settings = ModelSettings {
            profile: "fast".to_owned(),
            ..ModelSettings::default()
        };
        let catalogue = Catalogue::open(&settings).unwrap();
        assert_eq!(catalogue.model_of(&Gallery::default()), "fr_feature");
        assert_eq!(catalogue.model_of(&gallery("sface")), "sface");
        assert_eq!(catalogue.shipped_of(&gallery("sface")).cutoff, 0.363);
        catalogue.expect(&gallery("sface")).unwrap();
        let error = catalogue.expect(&gallery("lost")).unwrap_err().to_string();
        assert!(error.contains("lost"), "{error}");
        assert_eq!(catalogue.find("fast"), Some("fr_feature"));
        assert_eq!(catalogue.find("int8"), Some("sface_int8"));
        assert_eq!(catalogue.find("sface"), Some("sface"));
        assert_eq!(catalogue.find("slow"), None);
        assert_eq!(catalogue.to_embed(&gallery("sface")), ["sface"]);
        catalogue.set_next(Some("fr_feature".to_owned()));
        assert_eq!(
            catalogue.to_embed(&gallery("sface")),
            ["sface", "fr_feature"]
        );
    }

    #[test]
    fn an_unknown_profile_is_named() {
        let settings = ModelSettings {
            profile: "slow".to_owned(),
            ..ModelSettings::default()
        };
        let error = Catalogue::open(&settings).err().expect("it is refused");
        assert!(error.to_string().contains("slow"), "{error}");
    }
}
