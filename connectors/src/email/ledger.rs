//! What became of which trigger, as the log tells it: triggers that wait, results that are said, claims.
//!
//! A claim is a result of status `sending`. It is written before the call that can't be taken back, and the first one
//! in the log counts, so of several instances one sends; who finds the claim of another that never says more calls the
//! outcome `unknown` and does not send again.

use super::EXPIRES_AFTER;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};
use tillflow_schemas::{EmailResult, EmailTrigger, Timestamp};

/// The status of a claim.
pub const SENDING: &str = "sending";
/// The status by which who claimed a mail and did not send it gives the claim back.
pub const WAITING: &str = "waiting";
/// Mails claimed and not yet sent, at most: of them nobody knows after a crash.
const AHEAD: usize = 4;
/// How long the holder of a claim has to say what came of it.
pub const CLAIM_HOLDS: Duration = Duration::from_secs(120);
/// How long a claim may take to come back from the log before it is made anew.
const CLAIM_RETURNS: Duration = Duration::from_secs(10);
/// How long results are remembered, so that a trigger read after its result is known.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// What is to be done about a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say that it is being sent, and wait until the log has it.
    Claim,
    /// Send it.
    Send,
    /// It was to go out too long ago.
    Expire,
    /// Who claimed it never said what came of it.
    GiveUp,
}

struct Waiting {
    trigger: EmailTrigger,
    partition: u32,
    /// Nothing is done before.
    not_before: Option<Instant>,
    tries: u32,
}

struct Claim {
    by: String,
    seen: Instant,
}

/// What became of which trigger.
#[derive(Default)]
pub struct Ledger {
    /// By the time at which they are due, then by id.
    waiting: BTreeMap<(Timestamp, String), Waiting>,
    due: HashMap<String, Timestamp>,
    claims: HashMap<String, Claim>,
    /// Claimed by this process, or about to be, and to be sent next.
    ahead: HashSet<String>,
    settled: HashMap<String, Timestamp>,
}

impl Ledger {
    /// Knows that these are settled.
    pub fn new(settled: HashMap<String, Timestamp>) -> Self {
        Self { settled, ..Self::default() }
    }

    /// The log has a trigger.
    pub fn trigger(&mut self, partition: u32, trigger: EmailTrigger) {
        let id = trigger.trigger_id.clone();
        if self.settled.contains_key(&id) || self.due.contains_key(&id) {
            return;
        }
        self.due.insert(id.clone(), trigger.send_after);
        self.waiting.insert((trigger.send_after, id), Waiting { trigger, partition, not_before: None, tries: 0 });
    }

    /// The log has a result, or is about to.
    pub fn result(&mut self, result: &EmailResult) {
        let id = &result.trigger_id;
        if result.status == SENDING {
            let by = result.provider_id.clone().unwrap_or_default();
            if !self.settled.contains_key(id) {
                self.claims.entry(id.clone()).or_insert(Claim { by, seen: Instant::now() });
            }
            // What waits for this very claim goes on.
            if let Some(waiting) = self.find(id) {
                waiting.not_before = None;
            }
            return;
        }
        self.claims.remove(id);
        self.ahead.remove(id);
        if result.status == WAITING {
            return;
        }
        self.settled.insert(id.clone(), result.at);
        if let Some(due) = self.due.remove(id) {
            self.waiting.remove(&(due, id.clone()));
        }
    }

    /// The next thing to do at `now` for partitions that are `own`. `me` claims before it sends, where it must.
    pub fn next(&mut self, now: Timestamp, own: impl Fn(u32) -> bool, me: Option<&str>) -> Option<(Step, EmailTrigger)> {
        let instant = Instant::now();
        for ((due, id), waiting) in &mut self.waiting {
            if *due > now {
                return None;
            }
            if !own(waiting.partition) || waiting.not_before.is_some_and(|at| at > instant) {
                continue;
            }
            let step = match (self.claims.get(id), me) {
                (Some(claim), Some(me)) if claim.by == me => Step::Send,
                (Some(claim), _) if claim.seen + CLAIM_HOLDS > instant => continue,
                (Some(_), _) => Step::GiveUp,
                (None, _) if now > *due + EXPIRES_AFTER => Step::Expire,
                (None, Some(_)) if self.ahead.len() >= AHEAD && !self.ahead.contains(id) => continue,
                (None, Some(_)) => Step::Claim,
                (None, None) => Step::Send,
            };
            if step == Step::Claim {
                waiting.not_before = Some(instant + CLAIM_RETURNS);
                self.ahead.insert(id.clone());
            }
            return Some((step, waiting.trigger.clone()));
        }
        None
    }

    /// It could not be sent now: the number of times that was so.
    pub fn tries(&mut self, id: &str) -> u32 {
        self.find(id).map_or(0, |waiting| {
            waiting.tries += 1;
            waiting.tries
        })
    }

    /// Nothing is done about it for that long.
    pub fn put_off(&mut self, id: &str, wait: Duration) {
        if let Some(waiting) = self.find(id) {
            waiting.not_before = Some(Instant::now() + wait);
        }
        // One that a server refuses for hours holds up no other.
        self.ahead.remove(id);
    }

    /// What `me` claimed and did not send.
    pub fn claimed(&self, me: &str) -> Vec<EmailTrigger> {
        let mine = self.waiting.values().filter(|w| self.claims.get(&w.trigger.trigger_id).is_some_and(|claim| claim.by == me));
        mine.map(|w| w.trigger.clone()).collect()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets results that nobody will ask for any more.
    pub fn forget(&mut self, now: Timestamp) {
        self.settled.retain(|_, at| *at + REMEMBERED > now);
        self.claims.retain(|id, claim| self.due.contains_key(id) || claim.seen.elapsed() < CLAIM_HOLDS);
    }

    /// The results that are remembered.
    pub fn settled(&self) -> &HashMap<String, Timestamp> {
        &self.settled
    }

    fn find(&mut self, id: &str) -> Option<&mut Waiting> {
        let due = *self.due.get(id)?;
        self.waiting.get_mut(&(due, id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn trigger(id: &str, due: &str) -> EmailTrigger {
        EmailTrigger {
            trigger_id: id.into(),
            user_id: "u".into(),
            campaign_id: "birthday".into(),
            template: "birthday".into(),
            to: "a@b.example".into(),
            data: Default::default(),
            because: String::new(),
            send_after: time(due),
        }
    }

    fn result(id: &str, status: &str, by: Option<&str>) -> EmailResult {
        EmailResult {
            trigger_id: id.into(),
            user_id: "u".into(),
            status: status.into(),
            provider_id: by.map(str::to_owned),
            detail: String::new(),
            at: time("2026-03-01T11:00:00Z"),
        }
    }

    const DUE: &str = "2026-03-01T11:00:00Z";

    fn steps(ledger: &mut Ledger, now: &str, me: Option<&str>) -> Option<Step> {
        ledger.next(time(now), |_| true, me).map(|(step, _)| step)
    }

    #[test]
    fn a_trigger_is_due_at_its_time_for_its_owner_until_its_result_whichever_is_read_first() {
        let mut ledger = Ledger::default();
        ledger.trigger(3, trigger("a", DUE));
        assert_eq!(steps(&mut ledger, "2026-03-01T10:59:59Z", None), None);
        assert!(ledger.next(time(DUE), |p| p != 3, None).is_none(), "another instance's");
        assert_eq!(steps(&mut ledger, DUE, None), Some(Step::Send));
        assert_eq!(steps(&mut ledger, "2026-03-01T17:00:01Z", None), Some(Step::Expire));
        ledger.result(&result("a", "sent", None));
        ledger.result(&result("b", "sent", None));
        ledger.trigger(3, trigger("b", DUE));
        ledger.trigger(3, trigger("a", DUE));
        assert_eq!((steps(&mut ledger, DUE, None), ledger.waiting()), (None, 0));
    }

    #[test]
    fn of_several_claims_the_first_in_the_log_counts() {
        for (first, expected) in [("me", Some(Step::Send)), ("other", None)] {
            let mut ledger = Ledger::default();
            ledger.trigger(0, trigger("a", DUE));
            assert_eq!(steps(&mut ledger, DUE, Some("me")), Some(Step::Claim));
            assert_eq!(steps(&mut ledger, DUE, Some("me")), None, "until the claim comes back");
            ledger.result(&result("a", SENDING, Some(first)));
            ledger.result(&result("a", SENDING, Some(if first == "me" { "other" } else { "me" })));
            assert_eq!(steps(&mut ledger, DUE, Some("me")), expected);
            ledger.result(&result("a", "sent", None));
            assert_eq!(steps(&mut ledger, DUE, Some("me")), None);
        }
    }

    #[test]
    fn few_are_claimed_ahead_and_what_is_given_back_can_be_claimed_again() {
        let mut ledger = Ledger::default();
        for n in 0..10 {
            ledger.trigger(0, trigger(&n.to_string(), DUE));
        }
        let claimed = (0..10).filter(|_| steps(&mut ledger, DUE, Some("me")) == Some(Step::Claim)).count();
        assert_eq!(claimed, AHEAD);
        ledger.put_off("0", Duration::from_secs(60));
        assert_eq!(steps(&mut ledger, DUE, Some("me")), Some(Step::Claim), "one that waits for its server holds up no other");
        ledger.result(&result("1", SENDING, Some("me")));
        assert_eq!(ledger.claimed("me").len(), 1);
        ledger.result(&result("1", WAITING, None));
        assert_eq!(ledger.claimed("me").len(), 0);
        assert_eq!(steps(&mut ledger, DUE, Some("other")), Some(Step::Claim), "given back");
    }

    #[test]
    fn a_claim_that_nobody_follows_up_ends_unknown_and_is_not_sent_again() {
        let mut ledger = Ledger::default();
        ledger.trigger(0, trigger("a", DUE));
        ledger.result(&result("a", SENDING, Some("the process before")));
        if let Some(claim) = ledger.claims.get_mut("a") {
            claim.seen = Instant::now().checked_sub(CLAIM_HOLDS).unwrap();
        }
        assert_eq!(steps(&mut ledger, DUE, Some("me")), Some(Step::GiveUp));
    }

    #[test]
    fn what_is_put_off_waits_and_old_results_are_forgotten() {
        let mut ledger = Ledger::default();
        ledger.trigger(0, trigger("a", DUE));
        assert_eq!((ledger.tries("a"), ledger.tries("a")), (1, 2));
        ledger.put_off("a", Duration::from_secs(60));
        assert_eq!(steps(&mut ledger, DUE, None), None);
        ledger.result(&result("b", "sent", None));
        ledger.forget(time("2026-03-01T11:59:00Z"));
        assert_eq!(ledger.settled().len(), 1);
        ledger.forget(time("2026-03-01T12:00:01Z"));
        assert_eq!(ledger.settled().len(), 0);
    }
}
