//! Whether what a worker has in hand is still its own.
//!
//! The group fences by member id and generation. Those are the client's, which joins in the background; librdkafka, told upon its
//! join that the group no longer knows it, joins as a new member and keeps what it had (`rd_kafka_cgrp_handle_JoinGroup`, 2.12.1:
//! under the cooperative protocol only two other errors give it up). Then nobody is told that anything was lost, and a commit counts
//! as one of a member in good standing, of partitions that were another's meanwhile. A member id is never given twice: so what was
//! assigned under one is good for as long as the client has the same.

use super::Membership;
use std::collections::BTreeSet;

/// What a worker holds, and as which member it came by it.
#[derive(Debug)]
pub struct Tenure<M> {
    /// Nobody, until something is assigned.
    member: Option<M>,
    /// What the client takes for its own.
    claimed: BTreeSet<u32>,
    /// It was found to be over, and the worker does not know yet.
    over: bool,
}

/// What comes of a change that the client tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// What the worker is to hear.
    pub change: Membership,
    /// Whether the client has to give its membership up and join with nothing in hand.
    pub start_over: bool,
}

impl<M: PartialEq> Tenure<M> {
    /// Nothing is held.
    pub fn new() -> Self {
        Self { member: None, claimed: BTreeSet::new(), over: false }
    }

    /// A change that the client tells while it is this member.
    pub fn hear(&mut self, change: Membership, member: Option<M>) -> Told {
        let goes_on = self.member.is_some() && self.member == member;
        let change = match change {
            Membership::Assigned(new) if goes_on || self.claimed.is_empty() => {
                (self.member, self.over) = (member, false);
                self.claimed.extend(&new);
                Membership::Assigned(new)
            }
            // The client took what it had into a new membership. Whoever owned that meanwhile may only now be asked for it.
            Membership::Assigned(_) => return Told { change: self.end(), start_over: true },
            Membership::Revoked(gone) | Membership::Lost(gone) if !goes_on => Membership::Lost(gone),
            asked_back => asked_back,
        };
        if let Membership::Revoked(gone) | Membership::Lost(gone) = &change {
            self.claimed.retain(|p| !gone.contains(p));
        }
        Told { change, start_over: false }
    }

    /// Whether what is held may be committed by this member.
    pub fn goes_on(&mut self, member: Option<&M>) -> bool {
        let goes_on = self.member.is_some() && self.member.as_ref() == member;
        self.over |= !goes_on;
        goes_on
    }

    /// What the worker is to hear after it could not commit.
    pub fn lost(&mut self) -> Option<Membership> {
        if !std::mem::take(&mut self.over) {
            return None;
        }
        self.member = None;
        (!self.claimed.is_empty()).then(|| Membership::Lost(self.claimed.iter().copied().collect()))
    }

    /// All is lost.
    pub fn end(&mut self) -> Membership {
        (self.member, self.over) = (None, false);
        Membership::Lost(std::mem::take(&mut self.claimed).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Membership::{Assigned, Lost, Revoked};

    fn held() -> Tenure<&'static str> {
        let mut tenure = Tenure::new();
        assert_eq!(tenure.hear(Assigned(vec![1, 2]), Some("a")), Told { change: Assigned(vec![1, 2]), start_over: false });
        tenure
    }

    #[test]
    fn a_member_that_stays_commits_and_hears_what_it_is_told() {
        let mut tenure = held();
        assert!(tenure.goes_on(Some(&"a")));
        assert_eq!(tenure.lost(), None);
        let tell = |tenure: &mut Tenure<_>, change: Membership| tenure.hear(change, Some("a")).change;
        assert_eq!(tell(&mut tenure, Revoked(vec![1])), Revoked(vec![1]));
        assert_eq!(tell(&mut tenure, Assigned(vec![])), Assigned(vec![]));
        assert!(tenure.goes_on(Some(&"a")));
        assert_eq!(tell(&mut tenure, Lost(vec![2])), Lost(vec![2]));
    }

    #[test]
    fn what_an_expired_member_held_is_not_committed_by_the_next() {
        for now in [None, Some("b")] {
            let mut tenure = held();
            assert!(!tenure.goes_on(now.as_ref()));
            assert_eq!(tenure.lost(), Some(Lost(vec![1, 2])));
            assert_eq!(tenure.lost(), None, "told once");
            assert!(!tenure.goes_on(Some(&"b")));
        }
    }

    #[test]
    fn what_is_asked_back_of_a_new_member_was_lost() {
        assert_eq!(held().hear(Revoked(vec![1]), Some("b")), Told { change: Lost(vec![1]), start_over: false });
        assert_eq!(held().hear(Revoked(vec![1]), None), Told { change: Lost(vec![1]), start_over: false });
    }

    #[test]
    fn a_client_that_keeps_what_it_held_as_another_member_starts_over() {
        let mut tenure = held();
        assert_eq!(tenure.hear(Assigned(vec![3]), Some("b")), Told { change: Lost(vec![1, 2]), start_over: true });
        assert!(!tenure.goes_on(Some(&"b")), "until it has joined with nothing in hand");
        assert_eq!(tenure.hear(Revoked(vec![1, 2, 3]), Some("b")).change, Lost(vec![1, 2, 3]));
        assert_eq!(tenure.hear(Assigned(vec![1]), Some("c")), Told { change: Assigned(vec![1]), start_over: false });
        assert!(tenure.goes_on(Some(&"c")));
    }

    #[test]
    fn a_client_that_says_what_it_lost_goes_on_as_another_member() {
        let mut tenure = held();
        assert_eq!(tenure.hear(Lost(vec![1, 2]), None).change, Lost(vec![1, 2]));
        assert_eq!(tenure.hear(Assigned(vec![2]), Some("b")), Told { change: Assigned(vec![2]), start_over: false });
        assert!(tenure.goes_on(Some(&"b")));
    }

    #[test]
    fn who_is_no_member_when_it_is_told_commits_nothing() {
        let mut tenure = Tenure::<&str>::new();
        assert_eq!(tenure.hear(Assigned(vec![1]), None).change, Assigned(vec![1]));
        assert!(!tenure.goes_on(None));
        assert_eq!(tenure.lost(), Some(Lost(vec![1])));
    }
}
