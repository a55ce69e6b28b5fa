//! This very program as a child process: a test that does nothing unless it is told what to do.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shapeyard_cache::{Ask, Place, Produced, Served, StoreOptions};

use crate::common::{content, key, tree};

const TASK: &str = "SHAPEYARD_CACHE_TEST_TASK";

/// What a child does: once asks for a key, and writes down how it was served.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) root: PathBuf,
    /// Where children write lines such as `produced 123`.
    pub(crate) log: PathBuf,
    pub(crate) key: String,
    pub(crate) n_bytes: usize,
    /// How long producing takes.
    pub(crate) production: Duration,
    /// Where private folders may be made; by default only in memory.
    pub(crate) private: Option<PathBuf>,
    /// How much room has to be left.
    pub(crate) reserve_bytes: u64,
    /// Whether the producer claims success although its writing failed, as MIGraphX does.
    pub(crate) lies: bool,
}

impl Task {
    pub(crate) fn new(root: &Path, log: &Path) -> Self {
        Self {
            root: root.to_owned(),
            log: log.to_owned(),
            key: "model".to_owned(),
            n_bytes: 100_000,
            production: Duration::from_millis(20),
            private: None,
            reserve_bytes: 1,
            lies: false,
        }
    }

    fn to_text(&self) -> String {
        let private = self.private.as_deref().unwrap_or(Path::new("/dev/shm"));
        [
            self.root.to_str().unwrap(),
            self.log.to_str().unwrap(),
            &self.key,
            &self.n_bytes.to_string(),
            &self.production.as_millis().to_string(),
            private.to_str().unwrap(),
            &self.reserve_bytes.to_string(),
            &self.lies.to_string(),
        ]
        .join("\n")
    }

    fn from_text(text: &str) -> Self {
        let fields: Vec<&str> = text.lines().collect();
        let [root, log, key, n_bytes, production, private, reserve_bytes, lies] = fields[..] else {
            panic!("{text}")
        };
        Self {
            root: root.into(),
            log: log.into(),
            key: key.to_owned(),
            n_bytes: n_bytes.parse().unwrap(),
            production: Duration::from_millis(production.parse().unwrap()),
            private: Some(private.into()),
            reserve_bytes: reserve_bytes.parse().unwrap(),
            lies: lies.parse().unwrap(),
        }
    }

    /// The command that does it; `wrapper` is put in front.
    pub(crate) fn command(&self, wrapper: &[&str]) -> Command {
        let program = std::env::current_exe().unwrap();
        let mut command = match wrapper {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.args(["--exact", "child::works_when_it_is_told_to", "--nocapture"]);
        command.env(TASK, self.to_text()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    pub(crate) fn start(&self) -> Child {
        self.command(&[]).spawn().unwrap()
    }

    /// The lines that children wrote.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn count(&self, word: &str) -> usize {
        self.lines().iter().filter(|line| line.split(' ').next() == Some(word)).count()
    }

    fn say(&self, line: &str) {
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        log.write_all(format!("{line} {}\n", std::process::id()).as_bytes()).unwrap();
    }

    fn work(&self) {
        let key = key(&self.key);
        let (private, narrator) = (self.private.clone(), self.clone());
        let store = StoreOptions::new()
            .root(&self.root)
            .reserve_bytes(self.reserve_bytes)
            .private_places(private)
            .on_warning(move |warning| narrator.say(&format!("warned {warning}")))
            .open()
            .unwrap();
        let outcome = store.get_or_produce(&key, &Ask::new(), |path| {
            self.say("producing");
            let bytes = content(&key, self.n_bytes);
            let (first, second) = bytes.split_at(bytes.len() / 2);
            // In two steps, so that a kill or a full disk can come in between.
            let mut file = std::fs::File::create_new(path)?;
            let written = file.write_all(first).and_then(|()| {
                std::thread::sleep(self.production);
                file.write_all(second)
            });
            match written {
                Err(_) if self.lies => Ok(Produced::default()),
                Err(error) => Err(error.into()),
                Ok(()) => Ok(Produced::default()),
            }
        });
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return self.say(&format!("failed {error:?}")),
        };
        let is_whole = std::fs::read(outcome.entry.path()).unwrap() == content(&key, self.n_bytes);
        assert!(is_whole, "{} is torn", outcome.entry.path().display());
        if outcome.entry.place() == Place::Private {
            // Seen from here, since a file system of the parent's may lie over it.
            for path in tree(&self.root).iter().filter(|path| path.ends_with("payload")) {
                self.say(&format!("left {}", path.display()));
            }
        }
        self.say(match outcome.served {
            Served::Produced => "produced",
            Served::ProducedPrivately => "private",
            _ => "loaded",
        });
    }
}

#[test]
fn works_when_it_is_told_to() {
    if let Ok(task) = std::env::var(TASK) {
        Task::from_text(&task).work();
    }
}
