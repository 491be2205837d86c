//! Which earlier builds one is compared with: those of its own Dockerfile and context, and where there are none, those of a
//! project like it that was built somewhere else. A copy of a project is one, and so is each fresh checkout of a CI job.

use std::collections::HashSet;

use cache::{JournalEntry, Store};
use image::ImageRef;

use super::journal::{Journaled, JournaledStep, read};
use crate::ExecutorError;

/// So many builds of other places are read.
const N_LOOKED_AT: usize = 64;
/// With so many of them a build is compared.
const N_ALIKE: usize = 4;

/// Builds to compare one with.
#[derive(Debug, Default)]
pub struct Earlier {
    /// The builds, the youngest first.
    pub builds: Vec<Journaled>,
    /// Where the youngest was done, if that is another place.
    pub elsewhere: Option<String>,
}

/// Finds the builds that are older than `build` and tell why its steps were not known.
///
/// # Errors
///
/// The store cannot be read.
pub fn earlier(store: &Store, build: &Journaled) -> Result<Earlier, ExecutorError> {
    // One that found all as another left it has nothing to add.
    let is_older = |it: &JournalEntry| it.build < build.build && !it.is_again;
    let line = build.about.line();
    let mut builds = Vec::new();
    for entry in store.journal(&line)?.iter().filter(|it| is_older(it)) {
        builds.extend(read(store, entry)?);
    }
    if !builds.is_empty() || !steps(build).any(JournaledStep::needs_cause) {
        return Ok(Earlier { builds, elsewhere: None });
    }
    let journal = store.whole_journal()?;
    let others = journal.iter().filter(|it| it.line != line && is_older(it));
    for entry in others.take(N_LOOKED_AT) {
        builds.extend(read(store, entry)?.filter(|it| is_alike(build, it)));
        if builds.len() == N_ALIKE {
            break;
        }
    }
    let place = |it: &Journaled| match it.about.context.is_empty() {
        true => it.about.dockerfile.clone(),
        false => it.about.context.clone(),
    };
    let elsewhere = builds.first().map(place);
    Ok(Earlier { builds, elsewhere })
}

/// Whether two builds are of one project: they make images of one name, and half of the instructions are the same, or one has no
/// name, and all of them are, and the base images.
fn is_alike(build: &Journaled, other: &Journaled) -> bool {
    fn texts(build: &Journaled) -> impl Iterator<Item = &str> {
        steps(build).map(|it| it.text.as_str())
    }
    if build.about.names.is_empty() || other.about.names.is_empty() {
        let bases = |it: &Journaled| -> Vec<String> {
            it.plans.iter().flat_map(|it| &it.images).map(|it| it.reference.clone()).collect()
        };
        return texts(build).eq(texts(other)) && bases(build) == bases(other);
    }
    let known: HashSet<&str> = texts(other).collect();
    let n_same = texts(build).filter(|it| known.contains(it)).count();
    let repositories = |it: &Journaled| -> HashSet<String> {
        let names = it.about.names.iter().filter_map(|it| ImageRef::parse(it).ok());
        names.map(|it| it.repository()).collect()
    };
    n_same * 2 >= steps(build).count() && !repositories(build).is_disjoint(&repositories(other))
}

fn steps(build: &Journaled) -> impl Iterator<Item = &JournaledStep> {
    build.plans.iter().flat_map(|it| &it.steps)
}

#[cfg(test)]
mod tests {
    use super::{
        super::journal::{About, JournaledImage, JournaledPlan, Ref, State},
        *,
    };

    fn build(base: &str, names: &[&str], texts: &[&str]) -> Journaled {
        let step = |text: &&str| JournaledStep {
            name: (*text).to_owned(),
            text: (*text).to_owned(),
            stage: "0".to_owned(),
            parent: Ref::Nothing,
            reads: Vec::new(),
            state: State::Done,
            no_cache: false,
            key: None,
            recipe: serde_json::Value::Null,
            output: None,
        };
        let names = names.iter().map(|it| (*it).to_owned()).collect();
        let base = JournaledImage {
            reference: base.to_owned(),
            digest: String::new(),
            output: String::new(),
        };
        let steps = texts.iter().map(step).collect();
        let plan = JournaledPlan { images: vec![base], steps, ..JournaledPlan::default() };
        let about = About { names, ..About::default() };
        Journaled { about, plans: vec![plan], ..Journaled::default() }
    }

    #[test]
    fn projects_are_alike_by_name_and_instructions() {
        let texts = &["COPY . .", "RUN make"][..];
        let app = build("base", &["example.com/app:2"], texts);
        for (base, names, texts, expected) in [
            ("base", &["example.com/app:1"][..], texts, true),
            ("moved", &["other", "example.com/app"], &["WORKDIR /a", "RUN make"], true),
            ("base", &["example.com/app:1"], &["WORKDIR /a", "RUN make all"], false),
            ("base", &["example.com/other:2"], texts, false),
            ("base", &[], texts, true),
            ("base", &[], &["RUN make"], false),
            ("other", &[], texts, false),
        ] {
            assert_eq!(
                is_alike(&app, &build(base, names, texts)),
                expected,
                "{base} {names:?} {texts:?}"
            );
        }
    }
}
