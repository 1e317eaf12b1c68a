//! The entry points of a run for other programs, whether they are asynchronous or not.
//!
//! The engine blocks, and a source that is a server has an asynchronous runtime of its own. Tokio panics if that is
//! entered on a thread that runs asynchronous tasks, so the engine never runs on such a thread.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, Builder};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{run_here, state_of};
use crate::error::{Failure, RewindError};
use crate::options::Options;
use crate::outcome::Outcome;
use crate::progress::Progress;

/// Rewinds the target as far as [`Options::mode`] says. A rewind that an earlier run left unfinished is resumed. If
/// no rewind is required, no data is changed.
///
/// Blocks until the run has ended. Within a Tokio runtime use [`run_async`]; if this function is called there all the
/// same, the run has a thread of its own and the calling thread waits for it. Messages are `tracing` events; to stop
/// the run early, call [`StopFlag::request`](crate::StopFlag::request) on a clone of [`Options::stop`].
///
/// # Errors
/// [`Failure::error`] is the error of the stage that failed, [`Failure::target`] the state of the target then.
///
/// ```no_run
/// use kbrecover_rewind::conninfo::{Conninfo, ProcessEnvironment};
/// use kbrecover_rewind::{Options, Outcome, Silent, SourceChoice, TargetState};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let primary = "host=192.168.1.102 user=rewind_user dbname=postgres";
/// let primary = Conninfo::parse(primary, &ProcessEnvironment::PostgreSql)?;
/// let source = SourceChoice::Server(Box::new(primary));
/// let options = Options::new("/var/lib/postgresql/18/main".into(), source);
/// match kbrecover_rewind::run(&options, &Silent) {
///     Ok(Outcome::Rewound(report)) => println!("rewound, {} bytes fetched", report.bytes_fetched),
///     Ok(_) => println!("no rewind required"),
///     Err(failure) if failure.target == TargetState::Untouched => println!("failed: {}", failure.error),
///     Err(failure) => println!("failed, must be run again: {}", failure.error),
/// }
/// # Ok(())
/// # }
/// ```
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Outcome, Failure> {
    let ended = on_thread_of_its_own(|| run_here(options, progress));
    ended.unwrap_or_else(|source| Err(not_started(options, source)))
}

/// Does `work`: on a thread of its own, if this one runs asynchronous tasks.
///
/// # Errors
/// That thread could not be started.
pub(super) fn on_thread_of_its_own<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if Handle::try_current().is_err() {
        return Ok(work());
    }
    thread::scope(|scope| {
        let thread = named_thread().spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// As [`run`], for asynchronous programs: the engine runs on a thread of its own, and the future waits for its end. Any
/// executor can poll the future.
///
/// The run starts when the future is first polled. Dropping the future does not stop the run: call
/// [`StopFlag::request`](crate::StopFlag::request) on a clone of [`Options::stop`], and await the future to learn the
/// state of the target.
///
/// # Errors
/// As [`run`].
///
/// ```no_run
/// use std::sync::Arc;
/// use kbrecover_rewind::{Options, Silent, SourceChoice, run_async};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let source = SourceChoice::Directory("/backup/new_primary".into());
/// let options = Options::new("/var/lib/postgresql/18/main".into(), source);
/// let stop = options.stop.clone();
/// let outcome = tokio::select! {
///     outcome = run_async(options, Arc::new(Silent)) => outcome?,
///     _ = tokio::time::sleep(std::time::Duration::from_secs(3600)) => {
///         stop.request();
///         return Err("the rewind takes too long".into());
///     }
/// };
/// println!("{} bytes fetched", outcome.report().bytes_fetched);
/// # Ok(())
/// # }
/// ```
pub async fn run_async(options: Options, progress: Arc<dyn Progress>) -> Result<Outcome, Failure> {
    let options = Arc::new(options);
    let (sender, receiver) = oneshot::channel();
    let of_thread = Arc::clone(&options);
    let thread = named_thread().spawn(move || {
        let result = run_here(&of_thread, &*progress);
        // Nobody receives the result if the future has been dropped.
        let _ = sender.send(result);
    });
    let thread = thread.map_err(|source| not_started(&options, source))?;
    match receiver.await {
        Ok(result) => result,
        // The thread has ended without a result: it has panicked.
        Err(_) => match thread.join() {
            Ok(()) => Err(not_started(&options, io::Error::other("the thread ended without a result"))),
            Err(panic) => resume_unwind(panic),
        },
    }
}

fn named_thread() -> Builder {
    Builder::new().name("rewind".to_owned())
}

fn not_started(options: &Options, source: io::Error) -> Failure {
    Failure { error: Box::new(RewindError::Thread { source }), target: state_of(&options.target) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::{Conninfo, ProcessEnvironment};
    use crate::error::TargetState;
    use crate::observer::{Change, ChangeObserver, Verdict};
    use crate::options::SourceChoice;
    use crate::progress::Silent;
    use crate::source::SourceError;
    use crate::survey::error::SurveyError;

    /// Options for a target that can be locked, and a source on which no server listens.
    fn options(directory: &tempfile::TempDir) -> Options {
        let target = directory.path().join("target");
        std::fs::create_dir_all(target.join("global")).unwrap();
        std::fs::write(target.join("PG_VERSION"), "15\n").unwrap();
        let version = walparse::Version::find(1300, 202_209_061).unwrap();
        let control = walparse::control::testing::ControlFields::clean(version).build();
        std::fs::write(target.join("global/pg_control"), control).unwrap();
        let source = format!("host={} user=x dbname=x", directory.path().display());
        let source = Conninfo::parse(&source, &ProcessEnvironment::PostgreSql).unwrap();
        Options::new(target, SourceChoice::Server(Box::new(source)))
    }

    /// The attempt to connect shows that the source's own runtime was entered.
    fn assert_could_not_connect(result: Result<Outcome, Failure>) {
        let failure = result.unwrap_err();
        assert_eq!(failure.target, TargetState::Untouched);
        let RewindError::Survey(SurveyError::Source(error)) = *failure.error else {
            panic!("{:?}", failure.error)
        };
        assert!(matches!(error, SourceError::Connect { .. }), "{error:?}");
    }

    fn in_runtimes(test: impl AsyncFn()) {
        use tokio::runtime::Builder;
        for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            builder.enable_all().build().unwrap().block_on(test());
        }
    }

    #[test]
    fn run_async_works_in_the_runtime_of_the_caller() {
        let directory = tempfile::tempdir().unwrap();
        in_runtimes(async || {
            let run = run_async(options(&directory), Arc::new(Silent));
            assert_could_not_connect(tokio::spawn(run).await.unwrap());
        });
    }

    #[test]
    fn run_async_needs_no_runtime() {
        let directory = tempfile::tempdir().unwrap();
        let run = run_async(options(&directory), Arc::new(Silent));
        let mut run = std::pin::pin!(run);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let result = loop {
            if let std::task::Poll::Ready(result) = run.as_mut().poll(&mut context) {
                break result;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        };
        assert_could_not_connect(result);
    }

    #[test]
    fn run_works_with_and_without_a_runtime_of_the_caller() {
        let directory = tempfile::tempdir().unwrap();
        assert_could_not_connect(run(&options(&directory), &Silent));
        in_runtimes(async || assert_could_not_connect(run(&options(&directory), &Silent)));
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        #[derive(Debug)]
        struct Panics;
        impl ChangeObserver for Panics {
            fn before(&self, _: Change<'_>) -> io::Result<Verdict> {
                Ok(Verdict::Make)
            }
            fn before_question(&self, question: &str) -> io::Result<()> {
                panic!("the observer panics before {question}");
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(&directory);
        let source = directory.path().join("source");
        let copied = std::process::Command::new("cp").arg("-r").arg(&options.target).arg(&source).status();
        assert!(copied.unwrap().success());
        options.source = SourceChoice::Directory(source);
        options.observer = Some(Arc::new(Panics));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ended = runtime.block_on(async { tokio::spawn(run_async(options, Arc::new(Silent))).await });
        let panic = ended.unwrap_err().into_panic();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.starts_with("the observer panics before "), "{text}");
    }
}
