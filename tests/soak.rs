//! Random histories: what no scenario has thought of.
//!
//!     primary  ── shared ──┬── lost ──╳ stop or kill -9        the target
//!     standby  ┄┄┄┄┄┄┄┄┄┄┄ └── kept ──▶                        the source, or a standby of it
//!                                      rewind, perhaps killed and run again; follow; compare all content: one round
//!     Then the roles swap, and the next round begins.
//!
//! A round follows from a seed, and from the rounds before it in the same life of a pair of servers. A test that fails has
//! printed how to repeat it. By hand, 200 rounds of version 18:
//!
//!     KBRECOVER_TEST_SOAK="18 200" bash tests/run.sh soak::

mod dice;
mod meanwhile;
mod work;

use std::time::Duration;

use dice::Dice;
use meanwhile::Meanwhile;
use work::Worker;

use crate::harness::{
    Installation, Rewind, Sandbox, Server, SourceKind, WAL_LEVEL_MINIMAL, assert_follows, assert_sound, pick,
    run, seed, server_program, spawn_kbrecover,
};
use crate::interrupted::is_marked;

/// Rounds of one pair of servers: few enough to repeat them when one fails.
const ROUNDS_OF_A_LIFE: u64 = 8;

/// Rounds of a usual run.
const FEW_ROUNDS: u64 = 4;

#[test]
fn random_histories() {
    let (versions, rounds) = match std::env::var("KBRECOVER_TEST_SOAK") {
        Ok(text) => {
            let (major, rounds) =
                text.split_once(' ').expect("KBRECOVER_TEST_SOAK: a version and a number of rounds");
            (vec![major.parse().expect("a version")], rounds.parse().expect("a number of rounds"))
        }
        Err(_) => (pick("soak: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]), FEW_ROUNDS),
    };
    for major in versions {
        for life in 0..rounds.div_ceil(ROUNDS_OF_A_LIFE) {
            let rounds = ROUNDS_OF_A_LIFE.min(rounds - life * ROUNDS_OF_A_LIFE);
            let seed = seed() + life;
            tell(&format!(
                "KBRECOVER_TEST_SEED={seed} KBRECOVER_TEST_SOAK=\"{major} {rounds}\" bash tests/run.sh soak::"
            ));
            live(major, seed, rounds);
        }
    }
}

#[expect(clippy::print_stdout, reason = "shown where the test fails, and by --nocapture")]
fn tell(line: &str) {
    println!("{line}");
}

/// A pair of servers, and what becomes of it.
fn live(major: u32, seed: u64, rounds: u64) {
    let sandbox = Sandbox::new();
    let mut pair = Pair::new(&sandbox, major, Dice::of(seed));
    for round in 1..=rounds {
        pair.round(round);
    }
    pair.primary.stop();
    assert_sound(&mut pair.standby);
}

struct Pair {
    dice: Dice,
    primary: Server,
    standby: Server,
    /// Whether both have data checksums. Hint bits are then logged whatever wal_log_hints says.
    has_checksums: bool,
    round: u64,
    /// Of the last thing that a worker has named.
    number: u32,
}

impl Pair {
    fn new(sandbox: &Sandbox, major: u32, mut dice: Dice) -> Pair {
        // Of 15 there are all programs.
        let mut primary = match major {
            15 => sandbox.server("a"),
            _ => sandbox.initdb("a", Installation::of(major), &[]),
        };
        primary.configure("allow_in_place_tablespaces = on\nmax_connections = 40");
        let has_checksums = major != 15 || dice.one_in(2);
        if !has_checksums {
            run(server_program("pg_checksums").args(["--disable", "--no-sync", "-D"]).arg(&primary.data));
            primary.configure("wal_log_hints = on");
        }
        primary.start();
        let place = sandbox.make_dir("place");
        primary.sql(&format!("CREATE TABLESPACE place LOCATION '{}'", place.display()));
        primary.stop();
        let mut standby = primary.copy("b");
        primary.start();
        standby.follow(&primary);
        standby.start();
        Pair { dice, primary, standby, has_checksums, round: 0, number: 0 }
    }

    /// One failover, and the way back. The roles are swapped after it.
    fn round(&mut self, round: u64) {
        tell(&format!("round {round}"));
        self.round = round;
        self.work_before_the_fork();
        self.standby.catch_up(&self.primary);
        self.standby.promote();
        if self.dice.one_in(4) {
            assert_sound(&mut self.standby);
            self.standby.start();
        }
        let hints_were_lost = self.work_after_the_fork();
        if self.dice.one_in(2) {
            self.primary.kill()
        } else {
            self.primary.stop()
        }
        self.rewind(hints_were_lost);
        assert_follows(&mut self.primary, &self.standby);
        std::mem::swap(&mut self.primary, &mut self.standby);
    }

    fn work(&mut self, on_primary: bool, side: &str, actions: usize) {
        let Pair { primary, standby, dice, number, round, .. } = self;
        let server = if on_primary { primary } else { standby };
        let side = format!("{side}{round}");
        Worker { server, dice, side: &side, number }.act_often(actions);
    }

    fn work_before_the_fork(&mut self) {
        for _ in 0..self.dice.between(1, 3) {
            let actions = self.dice.between(1, 12);
            self.work(true, "shared", actions);
            match self.dice.below(4) {
                0 => self.standby.sql("CHECKPOINT"),
                1 => {
                    // A standby that crashes copies databases again, and finds that what it copied has been dropped since.
                    self.primary.sql("CHECKPOINT");
                    self.standby.catch_up(&self.primary);
                    self.standby.sql("CHECKPOINT");
                    self.standby.kill();
                    self.standby.start();
                }
                2 => {
                    self.standby.stop();
                    self.standby.start();
                }
                _ => self.standby.catch_up(&self.primary),
            }
        }
    }

    /// Both sides in turn, so that they use the same numbers. Whether hints of the target may not have been logged.
    fn work_after_the_fork(&mut self) -> bool {
        let mut hints_were_lost = false;
        for _ in 0..self.dice.between(1, 4) {
            let (lost, kept) = (self.dice.between(0, 8), self.dice.between(0, 8));
            self.work(true, "lost", lost);
            self.work(false, "kept", kept);
            match self.dice.below(16) {
                0 => {
                    self.lose_at(&WAL_LEVEL_MINIMAL);
                    // WAL of that time does not tell whether hints were logged.
                    hints_were_lost |= !self.has_checksums;
                }
                1 if !self.has_checksums => {
                    self.lose_at(&[("wal_log_hints", "off")]);
                    hints_were_lost = true;
                }
                2 => self.write_without_full_pages(),
                _ => (),
            }
        }
        hints_were_lost
    }

    /// The target works with these settings for a while.
    fn lose_at(&mut self, settings: &[(&str, &str)]) {
        tell(&format!("  the target with {settings:?}"));
        let Pair { primary, dice, number, round, .. } = self;
        let side = format!("lost_too{round}");
        primary.with_settings(settings, |server| Worker { server, dice, side: &side, number }.act_often(4));
        primary.start();
    }

    /// The source works with full_page_writes off for a while. Its blocks cannot be relied upon until its next checkpoint.
    fn write_without_full_pages(&mut self) {
        tell("  the source with full_page_writes off");
        let set = |server: &Server, value: &str| {
            server.sql(&format!("ALTER SYSTEM SET full_page_writes = {value}"));
            server.sql("SELECT pg_reload_conf()");
        };
        set(&self.standby, "off");
        self.work(false, "kept_too", 4);
        set(&self.standby, "on");
    }

    /// The old primary becomes one that can follow the new: rewound, or rebuilt where nobody can know what it holds.
    fn rewind(&mut self, hints_were_lost: bool) {
        let kind = *self.dice.of_these(&[SourceKind::Server, SourceKind::Server, SourceKind::Directory]);
        let mut third = self.dice.one_in(4).then(|| self.third());
        let from = *self.dice.of_these(&["auto", "common", "newest"]);
        let is_killed = self.dice.one_in(3);
        let is_busy = kind == SourceKind::Server && self.dice.one_in(3);
        // Not always: verifying mends what it finds.
        let is_verified = self.dice.one_in(2);
        let rewind = |target: &Server, source: &Server| rewind(target, source, kind, from, is_verified);
        tell(&format!(
            "  rewind: {kind:?}, replay from {from}, killed: {is_killed}, busy: {is_busy}, verified: {is_verified}, from a standby: {}",
            third.is_some()
        ));
        let busy = is_busy.then(|| Meanwhile::start(&self.standby));
        if is_killed {
            let patience = Duration::from_millis(self.dice.between(20, 1000) as u64);
            self.with_source(kind, third.as_mut(), |target, source| {
                let mut child = spawn_kbrecover(rewind(target, source));
                std::thread::sleep(patience);
                child.kill().expect("kill kbrecover");
                child.wait().expect("wait for kbrecover");
                tell(&format!("  killed after {patience:?}, marked: {}", is_marked(target)));
            });
        }
        let run = self.with_source(kind, third.as_mut(), |target, source| rewind(target, source).run());
        run.assert_nothing_was_wrong();
        if let Some(busy) = busy {
            busy.end();
        }
        tell(&format!("  exit status {}\n{}", run.code, run.stderr));
        if run.code != 0 {
            assert_eq!(run.code, 1, "neither done nor refused\n{run}");
            self.after_refusal(kind, third.as_mut(), hints_were_lost);
        }
        if let Some(mut third) = third {
            third.stop();
            std::fs::remove_dir_all(&third.data).expect("remove the third node");
        }
    }

    /// What was refused must go through once the source has made a checkpoint, unless hints may be anywhere.
    fn after_refusal(&mut self, kind: SourceKind, mut third: Option<&mut Server>, hints_were_lost: bool) {
        self.standby.sql("CHECKPOINT");
        if let Some(third) = &mut third {
            third.catch_up(&self.standby);
            third.sql("CHECKPOINT");
        }
        let run =
            self.with_source(kind, third, |target, source| rewind(target, source, kind, "auto", true).run());
        run.assert_nothing_was_wrong();
        tell(&format!("  exit status after a checkpoint {}\n{}", run.code, run.stderr));
        if run.code != 0 {
            let is_needed = hints_were_lost && run.stderr.contains("hint bits were not written to WAL");
            assert!(is_needed, "refused without need\n{run}");
            self.rebuild();
        }
    }

    /// Runs something with the target and its source, which is stopped meanwhile if its directory is read.
    fn with_source<T>(
        &mut self,
        kind: SourceKind,
        third: Option<&mut Server>,
        action: impl FnOnce(&Server, &Server) -> T,
    ) -> T {
        let source = third.unwrap_or(&mut self.standby);
        if kind == SourceKind::Directory {
            source.stop();
        }
        let result = action(&self.primary, source);
        if kind == SourceKind::Directory {
            source.start();
        }
        result
    }

    /// A standby of the new primary.
    fn third(&mut self) -> Server {
        self.standby.stop();
        let mut third = self.standby.copy(&format!("c{}", self.round));
        self.standby.start();
        third.follow(&self.standby);
        third.start();
        third.catch_up(&self.standby);
        third
    }

    /// What a base backup would do.
    fn rebuild(&mut self) {
        self.standby.stop();
        let rebuilt = self.standby.copy(&format!("r{}", self.round));
        self.standby.start();
        std::fs::remove_dir_all(&self.primary.data).expect("remove the old primary");
        self.primary = rebuilt;
    }
}

fn rewind(target: &Server, source: &Server, kind: SourceKind, from: &str, is_verified: bool) -> Rewind {
    let rewind = Rewind::of(target).unverified().from(source, kind).args(["--replay-from", from]);
    if is_verified { rewind.arg("--verify") } else { rewind }
}
