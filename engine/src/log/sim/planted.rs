//! Defects that can be planted, to see that the simulation finds them. Each misbehaves as the engine or its log would
//! with that mistake in it; no other build knows them.

macro_rules! defects {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A planted defect.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defect {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Defect {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

defects! {
    /// State is written to the disk before the transaction.
    StateBeforeTransaction,
    /// Offsets are not committed with the state: the changelog lacks them.
    OffsetsNotInTransaction,
    /// Inputs are read uncommitted.
    ReadUncommitted,
    /// The changelog's end is asked for before the committed offsets are stable.
    EndBeforeStableOffsets,
    /// A store counts as restored when the last record before the end was seen; there may be none.
    RestoredByLastRecord,
    /// No committed offset is taken for offset 0.
    NoOffsetIsZero,
    /// A commit of unknown outcome is taken for a success.
    UnknownIsSuccess,
    /// A commit of unknown outcome is taken for a failure.
    UnknownIsFailure,
    /// Replaced workers are not fenced.
    NoFencing,
    /// When only timers fired, the transaction carries no offsets.
    TimersWithoutOffsets,
    /// A plain abort is taken for an unknown outcome: everything is restored.
    AbortIsUnknown,
    /// Expired offsets are read as "start anew".
    ExpiredIsAnew,
    /// A store that is older than the changelog keeps tombstones is used again, and brings deleted keys back.
    OldStoreKept,
    /// Timers are not in the changelog.
    TimersNotLogged,
    /// What was seen is written after the transaction, not in it.
    SeenAfterWrite,
    /// Uncommitted rows are kept after an abort.
    OverlayKept,
    /// A re-keyed record is processed twice.
    RekeyedTwice,
    /// Half a batch reaches the disk.
    TornWrite,
    /// The recorded changelog position is ahead of the store.
    PositionAhead,
    /// A store is thrown away after a crash.
    WipedAfterCrash,
    /// Only the records of a transaction are awaited, not its deletions: they are lost from the changelog.
    DeletionsNotLogged,
    /// An input that is held back when it is started anew stays so for ever.
    HeldForGood,
    /// What is held is committed as whichever member the client is by now.
    AnyMemberCommits,
    /// What a client kept through a membership that ended is gone on with, once it is a member again.
    KeptIsAssigned,
}
