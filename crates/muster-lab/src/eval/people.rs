//! Labelled photographs, one folder a person, and the gallery of them.

use anyhow::Context;
use muster_gallery::{Embeddings, EnrolledFace, Gallery, Person};
use muster_recognize::recognizer::Face;

/// A person's photographs, labelled with the name: of each the file's name and the face, `None`
/// where none was found.
#[derive(Clone, Debug)]
pub struct LabelledPhotos {
    /// The folder's name.
    pub name: String,
    /// In the order of the file names.
    pub photos: Vec<(String, Option<Face>)>,
}

/// The gallery of these people, by that model; photographs without a face are left out, and people
/// without any.
///
/// The people's ids are numbers, so that a repetition has the same sample of comparisons.
pub fn gallery(model: &str, labelled: &[LabelledPhotos]) -> anyhow::Result<Gallery> {
    let mut people = Vec::with_capacity(labelled.len());
    for one in labelled {
        let faces: Vec<EnrolledFace> = one
            .photos
            .iter()
            .filter_map(|(file, face)| {
                let face = face.as_ref()?;
                let made = Embeddings::of(model, face.embedding.clone());
                let mut enrolled = EnrolledFace::new(file.clone(), made, 0);
                enrolled.quality = Some(face.quality);
                Some(enrolled)
            })
            .collect();
        if !faces.is_empty() {
            let mut person = Person::new(one.name.clone(), faces, 0);
            let number = format!("00000000-0000-7000-8000-{:012x}", people.len());
            person.id = number.parse().context("number a person")?;
            people.push(person);
        }
    }
    Ok(Gallery::of(model, people))
}
