//! Whether two sessions lead to the same server.
//!
//! Behind one address there may be several servers: a load balancer, a Kubernetes Service, a virtual IP address. Blocks of
//! two servers in one data directory are corruption that nobody notices, so every session of a run has to prove that it
//! leads to the server of the first one. The proofs, from the strongest:
//!
//! - An advisory lock with a random key, which all sessions of a run hold. A server on which it is seen is the same
//!   instance. It works on standbys as well, but is released when all sessions have been lost.
//! - The start time of the server, in microseconds. It differs between servers, and after a restart.
//! - The times at which the data directory was created on its host. They survive a restart, and tell the source after a
//!   restart from another server of the same cluster.
//!
//! A query that the role or the server does not allow is done without. A further connection without any proof is not used:
//! the run is slower, but not wrong.

use futures_util::future;
use walparse::{ControlFile, TimelineId};

use super::session::Session;
use super::sql::{self, LockKey};
use crate::source::error::SourceError;

/// The server of a run, as the first session sees it.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    server: Identity,
    key: LockKey,
}

/// What a session finds out about its server; `None` for what it may not query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    system_identifier: u64,
    timeline: TimelineId,
    started: Option<i64>,
    created: Option<[i64; 2]>,
    /// Whether the lock of the run is seen there.
    is_locked: Option<bool>,
}

/// How the server of a session relates to the server of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Relation {
    /// The same instance.
    Same,
    /// The same data directory after a restart, as far as can be seen.
    Restarted,
    /// Another server.
    Another,
}

impl Instance {
    /// Takes the lock and identifies the server.
    pub(super) async fn of(session: &Session, control: &ControlFile) -> Result<Instance, SourceError> {
        let key = LockKey::random();
        session.hold(key).await?;
        let mut server = session.identify(key, control).await?;
        // A lock that its own holder does not see proves nothing: a pooler may change servers after each statement.
        server.is_locked = server.is_locked.filter(|is_locked| *is_locked);
        Ok(Instance { server, key })
    }

    /// Checks a further session, while another one holds the lock. From then on this one holds it, too.
    ///
    /// # Errors
    /// It leads to another server; no connection.
    pub(super) async fn join(&self, session: &Session, name: &str) -> Result<(), SourceError> {
        let control = session.witness().await?.control;
        let other = session.identify(self.key, &control).await?;
        if !self.is_same_beyond_doubt(&other) {
            return Err(self.refusal(&other, name));
        }
        session.hold(self.key).await
    }

    fn is_same_beyond_doubt(&self, other: &Identity) -> bool {
        let is_locked = self.server.is_locked.and(other.is_locked);
        self.relation(other) == Relation::Same
            && is_locked != Some(false)
            && (is_locked == Some(true) || other.timeline == self.server.timeline)
    }

    /// Identifies the server of a session that is to take the place of a lost one. The sessions that held the lock may all
    /// be lost: that it is not seen means nothing then.
    pub(super) async fn relation_to(
        &self,
        session: &Session,
        control: &ControlFile,
    ) -> Result<(Relation, Identity), SourceError> {
        let other = session.identify(self.key, control).await?;
        let relation = self.relation(&other);
        if relation == Relation::Same {
            session.hold(self.key).await?;
        }
        Ok((relation, other))
    }

    fn relation(&self, other: &Identity) -> Relation {
        if self.server.system_identifier != other.system_identifier {
            return Relation::Another;
        }
        let agree = |ours: Option<i64>, theirs: Option<i64>| Some(ours? == theirs?);
        let by_directory = |relation| match self.server.created.zip(other.created) {
            Some((ours, theirs)) if ours == theirs => relation,
            Some(_) => Relation::Another,
            None => Relation::Restarted,
        };
        match (agree(self.server.started, other.started), self.server.is_locked.and(other.is_locked)) {
            (Some(false), _) => by_directory(Relation::Restarted),
            (Some(true), _) | (None, Some(true)) => Relation::Same,
            (None, Some(false)) => by_directory(Relation::Restarted),
            (None, None) => by_directory(Relation::Same),
        }
    }

    /// The error for a session that leads to another server.
    pub(super) fn refusal(&self, other: &Identity, name: &str) -> SourceError {
        let ours = &self.server;
        let problem = if ours.system_identifier != other.system_identifier {
            format!(
                "it belongs to another database system ({}, not {})",
                other.system_identifier, ours.system_identifier
            )
        } else if ours.started.zip(other.started).is_some_and(|(ours, theirs)| ours != theirs) {
            "another server of the same cluster answers at this address (its start time differs)".to_owned()
        } else {
            "it is not proven to be the same server".to_owned()
        };
        SourceError::Changed { server: name.to_owned(), problem, may_pass: true }
    }
}

impl Session {
    /// Takes the lock with this key, if the server allows it. It is held until the session ends.
    async fn hold(&self, key: LockKey) -> Result<(), SourceError> {
        let query = self.dialect.take_lock(key);
        self.row_if_allowed(query, "taking an advisory lock").await.map(|_| ())
    }

    async fn identify(&self, key: LockKey, control: &ControlFile) -> Result<Identity, SourceError> {
        let doing = "identifying the server";
        let created = self.dialect.created(self.flavor.names());
        // Sent together and processed in order: one round trip.
        let (started, created, is_locked) = future::try_join3(
            self.row_if_allowed(self.dialect.started(), doing),
            self.row_if_allowed(Some(created), doing),
            self.row_if_allowed(self.dialect.is_locked(key), doing),
        )
        .await?;
        let number = |row: &Option<Vec<Option<String>>>, column: usize| -> Option<i64> {
            row.as_ref()?.get(column)?.as_deref()?.parse().ok()
        };
        Ok(Identity {
            system_identifier: control.system_identifier(),
            timeline: control.timeline(),
            started: number(&started, 0),
            created: number(&created, 0).zip(number(&created, 1)).map(|(root, base)| [root, base]),
            is_locked: is_locked.map(|row| sql::is_true(row.first().and_then(Option::as_deref))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: i64 = 1_700_000_000_000_000;

    fn identity(started: Option<i64>, created: Option<i64>, is_locked: Option<bool>) -> Identity {
        Identity {
            system_identifier: 7,
            timeline: TimelineId(2),
            started,
            created: created.map(|time| [time, time + 1]),
            is_locked,
        }
    }

    fn relation(ours: Identity, theirs: &Identity) -> (Relation, bool) {
        let instance = Instance { server: ours, key: LockKey::random() };
        (instance.relation(theirs), instance.is_same_beyond_doubt(theirs))
    }

    #[test]
    fn a_server_is_recognised() {
        let ours = || identity(Some(STARTED), Some(5), Some(true));
        // The lock is seen, or was released with the last session that held it; the directory may have been touched.
        assert_eq!(relation(ours(), &ours()), (Relation::Same, true));
        assert_eq!(relation(ours(), &identity(Some(STARTED), Some(6), Some(true))), (Relation::Same, true));
        assert_eq!(relation(ours(), &identity(Some(STARTED), Some(5), Some(false))), (Relation::Same, false));
        // Another start time: the directory decides.
        for is_locked in [Some(true), Some(false), None] {
            let restarted = identity(Some(STARTED + 1), Some(5), is_locked);
            assert_eq!(relation(ours(), &restarted), (Relation::Restarted, false));
            let another = identity(Some(STARTED + 1), Some(6), is_locked);
            assert_eq!(relation(ours(), &another), (Relation::Another, false));
        }
        let system = Identity { system_identifier: 8, ..ours() };
        assert_eq!(relation(ours(), &system), (Relation::Another, false));
    }

    #[test]
    fn what_may_not_be_queried_is_done_without() {
        let without_time = || identity(None, Some(5), Some(true));
        assert_eq!(relation(without_time(), &without_time()), (Relation::Same, true));
        let released = identity(None, Some(5), Some(false));
        assert_eq!(relation(without_time(), &released), (Relation::Restarted, false));

        let without_lock = || identity(Some(STARTED), Some(5), None);
        assert_eq!(relation(without_lock(), &without_lock()), (Relation::Same, true));
        let promoted = Identity { timeline: TimelineId(3), ..without_lock() };
        assert_eq!(relation(without_lock(), &promoted), (Relation::Same, false));

        let directory_only = || identity(None, Some(5), None);
        assert_eq!(relation(directory_only(), &directory_only()), (Relation::Same, true));
        assert_eq!(relation(directory_only(), &identity(None, Some(6), None)), (Relation::Another, false));
        let nothing = || identity(None, None, None);
        assert_eq!(relation(nothing(), &nothing()), (Relation::Restarted, false));
    }
}
