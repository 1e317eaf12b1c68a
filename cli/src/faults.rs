//! Injects faults of the target's disk and of the source, for tests. Release builds have none of it.
//!
//! ```text
//! KBRECOVER_FAULT=17:28          the 17th change fails with errno 28
//! KBRECOVER_FAULT=17+:28         the 17th change and all later ones fail
//! KBRECOVER_FAULT=17:kill        the process is killed before the 17th change
//! KBRECOVER_FAULT=17:sh COMMAND  a shell command is run before the 17th change
//! KBRECOVER_CHANGES=FILE         all changes are recorded in FILE: one JSON object per line, followed by
//!                                the raw bytes of a write
//! KBRECOVER_SOURCE_FAULT=17:5    the 17th request to the source, or piece of its answers, fails
//! KBRECOVER_QUESTIONS=FILE       all requests and pieces are recorded in FILE, one per line
//! KBRECOVER_STEP_FAULT=start:begin   the process is killed before this step of a flow acts
//! KBRECOVER_STEP_FAULT=start:done    the process is killed after the step has acted
//! KBRECOVER_SKIP_SYNC=1          no fsync is performed, but all are counted
//! ```

use std::sync::Arc;

use kbrecover_hooks::flow::Moment;
use kbrecover_rewind::ChangeObserver;

/// The faults that the environment requests.
#[cfg(not(debug_assertions))]
pub(crate) fn from_environment() -> Option<Arc<dyn ChangeObserver>> {
    None
}

/// Injects the fault of a recovery flow's step, if it is due.
#[cfg(not(debug_assertions))]
pub(crate) fn at_step(_: &'static str, _: Moment) {}

#[cfg(debug_assertions)]
pub(crate) use debug::{at_step, from_environment};

#[cfg(debug_assertions)]
mod debug {
    use std::fs::File;
    use std::io::{self, Write};
    use std::process::{Command, Stdio};
    use std::sync::{Mutex, PoisonError};

    use kbrecover_rewind::{Change, Verdict};
    use rustix::process::{Signal, getpid, kill_process};
    use serde_json::{Value, json};

    use super::*;

    /// The faults that the environment requests.
    pub(crate) fn from_environment() -> Option<Arc<dyn ChangeObserver>> {
        let fault = std::env::var("KBRECOVER_FAULT").ok();
        let record = std::env::var_os("KBRECOVER_CHANGES");
        let source_fault = std::env::var("KBRECOVER_SOURCE_FAULT").ok();
        let questions = std::env::var_os("KBRECOVER_QUESTIONS");
        let skips_sync = std::env::var_os("KBRECOVER_SKIP_SYNC").is_some();
        let is_requested =
            fault.is_some() || record.is_some() || source_fault.is_some() || questions.is_some();
        if !is_requested && !skips_sync {
            return None;
        }
        let parse = |text: String| Fault::parse(&text).unwrap_or_else(|| panic!("no fault: {text}"));
        let create = |path| File::create(path).unwrap_or_else(|error| panic!("{error}"));
        let state = Mutex::new(State { count: 0, record: record.map(create) });
        let source = Mutex::new(State { count: 0, record: questions.map(create) });
        let (fault, source_fault) = (fault.map(parse), source_fault.map(parse));
        Some(Arc::new(Faults { fault, source_fault, skips_sync, state, source }))
    }

    /// Injects the fault of a recovery flow's step, if it is due.
    pub(crate) fn at_step(name: &'static str, moment: Moment) {
        let moment = moment.name();
        if std::env::var("KBRECOVER_STEP_FAULT").is_ok_and(|wanted| wanted == format!("{name}:{moment}")) {
            // If it succeeds, the process ends here.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    #[derive(Debug)]
    struct Faults {
        fault: Option<Fault>,
        source_fault: Option<Fault>,
        skips_sync: bool,
        state: Mutex<State>,
        source: Mutex<State>,
    }

    #[derive(Debug)]
    struct State {
        count: u64,
        record: Option<File>,
    }

    #[derive(Clone, PartialEq, Eq, Debug)]
    struct Fault {
        /// The number of the change, counted from 1.
        at: u64,
        is_lasting: bool,
        effect: Effect,
    }

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Effect {
        Kill,
        Errno(i32),
        Shell(String),
    }

    impl Fault {
        fn parse(text: &str) -> Option<Fault> {
            let (at, effect) = text.split_once(':')?;
            let effect = match (effect, effect.strip_prefix("sh ")) {
                ("kill", _) => Effect::Kill,
                (_, Some(command)) => Effect::Shell(command.to_owned()),
                _ => Effect::Errno(effect.parse().ok()?),
            };
            let (number, is_lasting) = at.strip_suffix('+').map_or((at, false), |number| (number, true));
            let at = number.parse().ok()?;
            Some(Fault { at, is_lasting, effect })
        }
    }

    impl ChangeObserver for Faults {
        fn before(&self, change: Change<'_>) -> io::Result<Verdict> {
            // The lock is held while the fault happens, so that no other change is made meanwhile.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.count += 1;
            inject_if_due(self.fault.as_ref(), state.count)?;
            if let Some(record) = &mut state.record {
                let bytes = if let Change::Write { bytes, .. } = change { bytes } else { b"" };
                record.write_all(format!("{}\n", describe(change)).as_bytes())?;
                record.write_all(bytes)?;
            }
            let is_sync = matches!(
                change,
                Change::SyncFile { .. } | Change::SyncDirectory { .. } | Change::SyncFileSystem { .. }
            );
            Ok(if is_sync && self.skips_sync { Verdict::SkipSync } else { Verdict::Make })
        }

        fn before_question(&self, question: &str) -> io::Result<()> {
            let mut state = self.source.lock().unwrap_or_else(PoisonError::into_inner);
            state.count += 1;
            if let Some(record) = &mut state.record {
                record.write_all(format!("{question}\n").as_bytes())?;
            }
            inject_if_due(self.source_fault.as_ref(), state.count)
        }
    }

    fn inject_if_due(fault: Option<&Fault>, count: u64) -> io::Result<()> {
        match fault {
            Some(fault) if count == fault.at || fault.is_lasting && count > fault.at => fault.effect.inject(),
            _ => Ok(()),
        }
    }

    impl Effect {
        fn inject(&self) -> io::Result<()> {
            match self {
                Effect::Errno(number) => Err(io::Error::from_raw_os_error(*number)),
                Effect::Kill => {
                    kill_process(getpid(), Signal::KILL)?;
                    loop {
                        std::thread::park();
                    }
                }
                Effect::Shell(command) => {
                    Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::null()).status().map(|_| ())
                }
            }
        }
    }

    fn describe(change: Change<'_>) -> Value {
        match change {
            Change::CreateFile { path } => json!({"create": path}),
            Change::SetMode { path, mode } => json!({"chmod": path, "mode": mode}),
            Change::Write { path, offset, bytes } => {
                json!({"write": path, "offset": offset, "length": bytes.len()})
            }
            Change::SetLength { path, length } => json!({"truncate": path, "length": length}),
            Change::CreateDirectory { path } => json!({"mkdir": path}),
            Change::CreateLink { path, to } => json!({"symlink": path, "to": to}),
            Change::RemoveFile { path } => json!({"unlink": path}),
            Change::RemoveDirectory { path } => json!({"rmdir": path}),
            Change::Rename { from, to } => json!({"rename": from, "to": to}),
            Change::SyncFile { path } => json!({"fsync": path}),
            Change::SyncDirectory { path } => json!({"fsync_directory": path}),
            Change::SyncFileSystem { path } => json!({"syncfs": path}),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn faults_are_parsed() {
            let fault = |at, is_lasting, effect| Some(Fault { at, is_lasting, effect });
            assert_eq!(Fault::parse("17:28"), fault(17, false, Effect::Errno(28)));
            assert_eq!(Fault::parse("17+:28"), fault(17, true, Effect::Errno(28)));
            assert_eq!(Fault::parse("1:kill"), fault(1, false, Effect::Kill));
            assert_eq!(Fault::parse("3:sh a: b"), fault(3, false, Effect::Shell("a: b".into())));
            assert_eq!(Fault::parse("x:28"), None);
            assert_eq!(Fault::parse("17"), None);
        }
    }
}
