//! A visitor becomes known: what they had moves to the user, once, and to one user only.
//!
//! The two ids lie in different partitions, so it takes a round trip: the event that carries both tells the owner of
//! the anonymous id, where each processor that keeps something of a visitor gives it away to the first user that asks.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, json};
use tillflow_schemas::{CustomerSignal, Timestamp, UserId};

/// Name of the table of who joined whom, `UserId → Joins`.
pub const JOINS: &str = "shopper.joins";
/// To the owner of an anonymous id: an event said who it is.
pub const JOIN: &str = "shopper.join";
/// Ids remembered that a user went by; the oldest go first. One asked again is asked in vain.
const REMEMBERED: usize = 16;

/// Who an id turned out to be, and which others a user went by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Joins {
    /// Ids that this one went by before it was known, bounded.
    asked: Vec<UserId>,
    /// Who the visitor turned out to be.
    to: Option<UserId>,
}

impl Joins {
    /// The signal that asks for what an anonymous id has, unless it was asked for before.
    pub fn ask(&mut self, user: &UserId, anonymous: &UserId, at: Timestamp) -> Option<CustomerSignal> {
        if user == anonymous || self.asked.contains(anonymous) {
            return None;
        }
        self.asked.push(anonymous.clone());
        let excess = self.asked.len().saturating_sub(REMEMBERED);
        self.asked.drain(..excess);
        Some(signal(anonymous, JOIN, user, at, user))
    }

    /// Joins the visitor to the user that asks; `false` where they are another's.
    pub fn join(&mut self, asked: &CustomerSignal) -> bool {
        if self.to.is_none() {
            self.to = told(asked);
        }
        self.is_of(asked)
    }

    /// Whether the visitor is joined to the user that asks.
    pub fn is_of(&self, asked: &CustomerSignal) -> bool {
        self.to.is_some() && self.to == told(asked)
    }
}

/// The answer to who asked: here is what the visitor had.
pub fn answer(asked: &CustomerSignal, kind: &str, what: &impl Serialize) -> Option<CustomerSignal> {
    Some(signal(&told(asked)?, kind, &asked.user_id, asked.at, what))
}

/// What a signal of this module carries.
pub fn told<T: DeserializeOwned>(signal: &CustomerSignal) -> Option<T> {
    serde_json::from_value(signal.data.get("value")?.clone()).ok()
}

fn signal(to: &UserId, kind: &str, about: &UserId, at: Timestamp, value: &impl Serialize) -> CustomerSignal {
    let data = Map::from_iter([("value".to_owned(), json!(value))]);
    CustomerSignal { user_id: to.clone(), signal_id: format!("{kind}:{about}"), at, kind: kind.to_owned(), data }
}
