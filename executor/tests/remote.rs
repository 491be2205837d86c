//! Builds with a shared cache and a worker that are slow, fail, or lie: they succeed with the same result, and use what is right.

mod builds;

use std::{
    collections::HashMap,
    io::{Cursor, Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use builds::Home;
use cache::{
    StepKey, Store,
    remote::{RemoteCache, RemoteResult, RemoteStep},
};
use executor::{
    Built, Event, Session, StepError,
    remote::{Work, Worker},
};
use image::{Digest, document::Descriptor};
use planner::{facts::Facts, request::Request};

/// Two steps of which the second reads the first.
const TEXT: &str = "FROM scratch AS a\nCOPY <<one /x\n1\none\nFROM scratch\nCOPY --from=a /x /y\nCOPY <<two /z\n2\ntwo\n";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Good,
    Slow,
    /// Every call fails.
    Failing,
    /// Calls fail now and then.
    Shaky,
    /// Blobs have a wrong byte.
    WrongBytes,
    /// Blobs end too early.
    Short,
    /// Blobs never end.
    Endless,
    /// Another step than was asked for.
    WrongStep,
    /// It knows steps, and has lost their blobs.
    Forgetful,
}

/// A cache in memory.
struct Fake {
    mood: Mutex<Mood>,
    steps: Mutex<HashMap<StepKey, RemoteStep>>,
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    n_calls: AtomicU32,
}

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(Mood::Good),
            steps: Mutex::default(),
            blobs: Mutex::default(),
            n_calls: AtomicU32::new(0),
        })
    }

    fn call(&self) -> RemoteResult<Mood> {
        let nth = self.n_calls.fetch_add(1, Ordering::SeqCst);
        let mood = *self.mood.lock().expect("no panic");
        match mood {
            Mood::Slow => std::thread::sleep(Duration::from_millis(30)),
            Mood::Failing => return Err("the network is down".into()),
            Mood::Shaky if nth % 3 == 1 => return Err("a connection was reset".into()),
            _ => {}
        }
        Ok(mood)
    }

    fn n_calls(&self) -> u32 {
        self.n_calls.swap(0, Ordering::SeqCst)
    }
}

impl RemoteCache for Fake {
    fn get(&self, key: &StepKey) -> RemoteResult<Option<RemoteStep>> {
        let mood = self.call()?;
        let steps = self.steps.lock().expect("no panic");
        let found = steps.get(key).cloned();
        if mood == Mood::WrongStep {
            return Ok(steps.values().find(|it| it.record.key != *key).cloned().or(found));
        }
        Ok(found)
    }

    fn put(&self, step: &RemoteStep) -> RemoteResult<()> {
        self.call()?;
        self.steps.lock().expect("no panic").insert(step.record.key, step.clone());
        Ok(())
    }

    fn blob(&self, digest: &Digest) -> RemoteResult<Option<Box<dyn Read + Send>>> {
        let mood = self.call()?;
        let Some(mut bytes) = self.blobs.lock().expect("no panic").get(digest).cloned() else {
            return Ok(None);
        };
        Ok(match mood {
            Mood::Forgetful => None,
            Mood::WrongBytes => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                Some(Box::new(Cursor::new(bytes)))
            }
            Mood::Short => {
                bytes.truncate(bytes.len() / 2);
                Some(Box::new(Cursor::new(bytes)))
            }
            Mood::Endless => Some(Box::new(Cursor::new(bytes).chain(std::io::repeat(0)))),
            _ => Some(Box::new(Cursor::new(bytes))),
        })
    }

    fn put_blob(&self, blob: &Descriptor, bytes: &mut dyn Read) -> RemoteResult<()> {
        self.call()?;
        let mut content = Vec::new();
        bytes.read_to_end(&mut content)?;
        assert_eq!((Digest::of(&content), content.len() as u64), (blob.digest, blob.size));
        self.blobs.lock().expect("no panic").insert(blob.digest, content);
        Ok(())
    }
}

/// Builds with a fixed time, so that layers made anywhere are the same.
fn build(session: &Session, text: &str) -> Result<Vec<Built>, StepError> {
    let (dockerfile, diagnostics) = parser::parse(text);
    assert_eq!(diagnostics, []);
    let request = Request { source_date_epoch: Some(1_000_000_000), ..Request::default() };
    let graph = planner::stages(&dockerfile, &request).expect("it has stages");
    let plan = planner::plan(&graph, &Facts::default()).expect("it has a plan");
    session.build(&[plan], &Facts::default())
}

/// A session in a store of its own, and what it was warned of.
fn session(home: &Home, cache: &Arc<Fake>) -> (Session, Arc<Mutex<Vec<String>>>) {
    let mut session = home.session();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = warnings.clone();
    session.listener = Arc::new(move |event| {
        if let Event::Warning { message, .. } = event {
            heard.lock().expect("no panic").push(message);
        }
    });
    session.clamp_times = true;
    session.shared.cache = Some(cache.clone());
    (session, warnings)
}

/// Builds in a new store, and returns the layers, how many steps were made there, and the warnings.
fn build_anew(cache: &Arc<Fake>) -> (Vec<String>, usize, Vec<String>) {
    let home = Home::new();
    let (session, warnings) = session(&home, cache);
    let made = Arc::new(AtomicU32::new(0));
    let listener = session.listener.clone();
    let mut session = session;
    let counter = made.clone();
    session.listener = Arc::new(move |event| {
        if let Event::Done { outcome: executor::Outcome::Done, .. } = &event {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        listener(event);
    });
    let built = build(&session, TEXT).expect("it is built");
    let layers = built[0].layers.iter().map(ToString::to_string).collect();
    // Whatever was taken is what it should be.
    let report = session.store.check(cache::CheckOptions::default()).expect("checked");
    assert!(report.is_sound(), "{report:?}");
    for layer in &built[0].layers {
        session.store.write_tar(layer, std::io::sink()).expect("it is whole");
    }
    let warnings = warnings.lock().expect("no panic").clone();
    (layers, made.load(Ordering::SeqCst) as usize, warnings)
}

#[test]
fn what_one_build_made_serves_another() {
    let cache = Fake::new();
    let (layers, n_made, warnings) = build_anew(&cache);
    assert_eq!((n_made, warnings.len()), (3, 0));
    assert_eq!(cache.steps.lock().expect("no panic").len(), 3);
    let (again, n_made, warnings) = build_anew(&cache);
    assert_eq!((again, n_made, warnings.len()), (layers, 0, 0));
}

#[test]
fn moods_of_the_cache_never_change_the_result() {
    let cache = Fake::new();
    let (layers, ..) = build_anew(&cache);
    for (mood, n_expected, is_warned) in [
        (Mood::Slow, 0, false),
        (Mood::Failing, 3, true),
        (Mood::WrongBytes, 3, true),
        (Mood::Short, 3, true),
        (Mood::Endless, 3, true),
        (Mood::WrongStep, 3, true),
        (Mood::Forgetful, 3, false),
    ] {
        *cache.mood.lock().expect("no panic") = mood;
        cache.n_calls();
        let (again, n_made, warnings) = build_anew(&cache);
        assert_eq!(again, layers, "{mood:?}");
        assert_eq!(n_made, n_expected, "{mood:?}");
        assert_eq!(!warnings.is_empty(), is_warned, "{mood:?}: {warnings:?}");
        if mood == Mood::Failing {
            assert_eq!(cache.n_calls(), 3, "after three failures nobody asks any more");
            assert!(warnings[2].ends_with("it is not asked any more"), "{warnings:?}");
        }
    }
    *cache.mood.lock().expect("no panic") = Mood::Shaky;
    let (again, ..) = build_anew(&cache);
    assert_eq!(again, layers);
}

/// A worker with a store of its own, which builds the same plan there.
struct Elsewhere {
    home: Home,
    cache: Arc<Fake>,
    mood: Mood,
    n_done: AtomicU32,
}

impl Worker for Elsewhere {
    fn execute(&self, work: &Work<'_>) -> RemoteResult<Option<RemoteStep>> {
        match self.mood {
            Mood::Failing => return Err("the worker is gone".into()),
            Mood::Forgetful => return Ok(None),
            Mood::Slow => std::thread::sleep(Duration::from_millis(50)),
            _ => {}
        }
        let (session, _) = session(&self.home, &self.cache);
        build(&session, TEXT).map_err(|it| it.to_string())?;
        let Some(mut record) = session.store.step(&work.key)? else { return Ok(None) };
        session.store.step_to(self.cache.as_ref(), &record)?;
        self.n_done.fetch_add(1, Ordering::SeqCst);
        let layer = self.cache.get(&work.key)?.and_then(|it| it.layer);
        if self.mood == Mood::WrongStep {
            record.key = StepKey([9; 32]);
        }
        Ok(Some(RemoteStep { record, layer }))
    }
}

#[test]
fn a_worker_does_what_it_can_and_the_rest_is_done_here() {
    let (layers, ..) = build_anew(&Fake::new());
    for (mood, n_done) in [
        (Mood::Good, 3),
        (Mood::Slow, 3),
        (Mood::Failing, 0),
        (Mood::Forgetful, 0),
        (Mood::WrongStep, 3),
        (Mood::WrongBytes, 3),
    ] {
        // The worker shares what it made with another cache than the build asks first.
        let (asked, filled) = (Fake::new(), Fake::new());
        let worker = Arc::new(Elsewhere {
            home: Home::new(),
            cache: filled.clone(),
            mood,
            n_done: AtomicU32::new(0),
        });
        let home = Home::new();
        let (mut session, warnings) = session(&home, &asked);
        session.shared.cache = Some(Arc::new(Both { asked, filled: filled.clone() }));
        session.shared.worker = Some(worker.clone());
        if mood == Mood::WrongBytes {
            *filled.mood.lock().expect("no panic") = mood;
        }
        let begun = Instant::now();
        let built = build(&session, TEXT).expect("it is built");
        assert!(begun.elapsed() < Duration::from_secs(60));
        let found: Vec<String> = built[0].layers.iter().map(ToString::to_string).collect();
        assert_eq!(found, layers, "{mood:?}");
        assert_eq!(worker.n_done.load(Ordering::SeqCst), n_done, "{mood:?}");
        let is_warned = !warnings.lock().expect("no panic").is_empty();
        let is_bad = matches!(mood, Mood::Failing | Mood::WrongStep | Mood::WrongBytes);
        assert_eq!(is_warned, is_bad, "{mood:?}");
    }
}

/// Steps of one cache, blobs of another.
struct Both {
    asked: Arc<Fake>,
    filled: Arc<Fake>,
}

impl RemoteCache for Both {
    fn get(&self, key: &StepKey) -> RemoteResult<Option<RemoteStep>> {
        self.asked.get(key)
    }

    fn put(&self, step: &RemoteStep) -> RemoteResult<()> {
        self.asked.put(step)
    }

    fn blob(&self, digest: &Digest) -> RemoteResult<Option<Box<dyn Read + Send>>> {
        self.filled.blob(digest)
    }

    fn put_blob(&self, blob: &Descriptor, bytes: &mut dyn Read) -> RemoteResult<()> {
        self.asked.put_blob(blob, bytes)
    }
}

#[test]
fn a_cache_that_hands_out_a_wrong_layer_stores_nothing() {
    let cache = Fake::new();
    build_anew(&cache);
    *cache.mood.lock().expect("no panic") = Mood::WrongBytes;
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    let keys: Vec<StepKey> = cache.steps.lock().expect("no panic").keys().copied().collect();
    for key in keys {
        assert!(store.step_from(cache.as_ref(), &key).is_err());
        assert!(store.step(&key).expect("a look").is_none());
    }
    assert_eq!(store.layers().expect("a list"), []);
    let mut blob = store.stage_blob().expect("staged");
    blob.write_all(b"x").expect("written");
    drop(blob);
    let blobs = store.root().join("oci/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).expect("a folder").count(), 0);
}
