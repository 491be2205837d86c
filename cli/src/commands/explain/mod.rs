//! `kiln explain`: why the steps of a build ran again.
//!
//! The journal of the store has the steps of each build and what their keys were made of. Here the build that is meant is
//! found; [`words`] has the sentences.

pub mod words;

use ::image::ImageRef;
use anyhow::anyhow;
use cache::{JournalEntry, Store};
use executor::{
    Session,
    explain::{self, Explained, ExplainedBuild},
};
use serde::Serialize;

use super::{Globals, build::execute::failed, images};
use crate::{
    args::dockerfile::ExplainArgs,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print, time,
    values::Format,
};

/// Explains a build.
///
/// # Errors
///
/// Fails where there was no such build.
pub fn run(args: &ExplainArgs, globals: &Globals) -> Result<Exit> {
    let store = globals.store()?;
    let explanation = match args.image.as_str() {
        "last" => last(&store)?,
        image => of_image(&store, image)?,
    };
    print::out(&match args.format {
        Format::Text => explanation.head() + "\n" + &explanation.text(),
        // Maps with string keys only: this cannot fail.
        Format::Json => serde_json::to_string_pretty(&explanation).unwrap_or_default() + "\n",
    })?;
    Ok(Exit::Done)
}

fn last(store: &Store) -> Result<Explanation> {
    for entry in store.whole_journal().or_failed()? {
        if let Some(found) = Explanation::of_entry(store, &entry)? {
            return Ok(found);
        }
    }
    Err(Failure::failed(anyhow!("nothing was built yet"))
        .hint("`kiln build --explain` builds and explains at once"))
}

/// The last build that made an image.
fn of_image(store: &Store, name: &str) -> Result<Explanation> {
    let image = images::find(store, name)?;
    let ids: Vec<String> = image.record.platforms.iter().map(|it| it.config.to_string()).collect();
    for entry in store.whole_journal().or_failed()? {
        let Some(build) = explain::read(store, &entry).map_err(failed)? else { continue };
        if build.images.iter().any(|it| ids.contains(it))
            && let Some(found) = Explanation::of_entry(store, &entry)?
        {
            return Ok(found);
        }
    }
    Err(Failure::failed(anyhow!("no build is remembered that made `{name}`")).hint(
        "an image that was pulled or loaded has no steps here, and of builds only the last ones are kept",
    ))
}

/// A build, and why its steps ran.
#[derive(Debug, Serialize)]
pub struct Explanation {
    build: String,
    time: u64,
    dockerfile: String,
    context: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    images: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Where the builds that it was compared with were done, if not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    elsewhere: Option<String>,
    plans: Vec<PlanExplanation>,
}

#[derive(Debug, Serialize)]
struct PlanExplanation {
    platform: String,
    steps: Vec<Explained>,
}

impl Explanation {
    fn new(explained: ExplainedBuild) -> Self {
        let ExplainedBuild { build, plans, elsewhere } = explained;
        let plans = build.plans.into_iter().zip(plans);
        let plans =
            plans.map(|(plan, steps)| PlanExplanation { platform: plan.platform, steps }).collect();
        Self {
            build: build.build,
            time: build.time,
            dockerfile: build.about.dockerfile,
            context: build.about.context,
            target: build.about.target,
            images: build.images,
            names: build.about.names,
            error: build.error,
            elsewhere,
            plans,
        }
    }

    /// Explains the build that a session just did. Nothing if it did not come to that.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    pub fn of_session(session: &Session) -> Result<Option<Self>> {
        let Some(about) = &session.about else { return Ok(None) };
        let journal = session.store.journal(&about.line()).or_failed()?;
        match journal.iter().find(|it| it.build == session.build_id) {
            Some(entry) => Self::of_entry(&session.store, entry),
            None => Ok(None),
        }
    }

    fn of_entry(store: &Store, entry: &JournalEntry) -> Result<Option<Self>> {
        let found = explain::explain_entry(store, entry).map_err(failed)?;
        Ok(found.map(Self::new))
    }

    /// Says which build it is.
    fn head(&self) -> String {
        let ago = time::ago(time::now() - i64::try_from(self.time).unwrap_or(0));
        let of = |place: &str, other: &str| match place {
            "" => other.to_owned(),
            place => place.to_owned(),
        };
        let mut text = format!("build    {}, {}\n", self.build, ago.to_lowercase());
        text.push_str(&format!("of       {}\n", of(&self.dockerfile, "standard input")));
        text.push_str(&format!("context  {}\n", of(&self.context, "none, or an archive")));
        if let Some(target) = &self.target {
            text.push_str(&format!("target   {target}\n"));
        }
        match &self.error {
            Some(error) => text.push_str(&format!("failed   {}\n", words::line(error))),
            None => {
                self.images.iter().for_each(|it| text.push_str(&format!("made     {it}\n")));
                let names = self.names.iter().filter_map(|it| it.parse().ok());
                names.for_each(|it: ImageRef| {
                    text.push_str(&format!("named    {}\n", it.familiar()))
                });
            }
        }
        text
    }

    /// The steps, with the causes of each below it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut steps = self.plans.iter().flat_map(|it| &it.steps);
        if let Some(place) = &self.elsewhere
            && steps.any(|it| it.compared_with.is_some())
        {
            text.push_str(&format!("compared with what was built in `{}`\n", words::line(place)));
        }
        for plan in &self.plans {
            if self.plans.len() > 1 {
                text.push_str(&format!("{}\n", plan.platform));
            }
            text.push_str(&words::steps(&plan.steps));
        }
        text
    }

    /// A line of JSON for those who read progress as JSON.
    pub fn record(&self) -> String {
        serde_json::json!({ "explain": self }).to_string() + "\n"
    }
}
