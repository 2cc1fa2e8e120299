//! What the room tells itself in other partitions, and what scarce things it grants there.
//!
//! A scarce thing (the stock of a reward, a month's prizes) is owned by the partition of its scope, which stands where
//! a user's id would: it alone counts what was granted, so no two partitions can give the last piece.

use super::{Loyalty, definition::from_fields, rewards};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tillflow_engine_api::{Context, Error, Result};
use tillflow_schemas::{CustomerSignal, OrderId, UserId};

/// A message from one partition's task to another's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
#[allow(clippy::enum_variant_names, reason = "their names go over the wire, beside those of other rooms")]
pub(super) enum Message {
    /// To the owner of a scope: may `user_id` have `amount` of it?
    LoyaltyGrantAsked { of: Scarce, amount: i64, user_id: UserId, command_id: String },
    /// Back.
    LoyaltyGrantAnswered { command_id: String, granted: bool },
    /// To the owner of a scope: `amount` is free again.
    LoyaltyGrantReturned { of: Scarce, amount: i64 },
    /// To the referrer: `referred_id` signed up and names you.
    LoyaltyReferralClaimed { referred_id: UserId },
    /// Back: whether the referrer is a customer.
    LoyaltyReferralAnswered { referrer_id: UserId, accepted: bool },
    /// To the referred user: `referrer_id`, a customer, has referred you.
    LoyaltyReferred { referrer_id: UserId, command_id: String },
    /// Back: why not, if not.
    LoyaltyReferredAnswered { referred_id: UserId, command_id: String, refused: Option<String> },
    /// To the referrer: `referred_id` has placed the first order.
    LoyaltyReferralEarned { referred_id: UserId, order_id: OrderId },
}

/// Something of which there is only so much in the whole shop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scarce {
    /// Pieces of a reward.
    Reward(String),
    /// Points that spins may win in a month.
    SpinPrizes(String),
}

impl Scarce {
    /// Where it is owned: a key that no user should have.
    fn scope(&self) -> String {
        match self {
            Self::Reward(id) => format!("loyalty:reward:{id}"),
            Self::SpinPrizes(month) => format!("loyalty:spin_prizes:{month}"),
        }
    }
}

impl Loyalty {
    /// Sends a message to the task that owns `to`. `id` names it among all that are ever sent there.
    pub(super) fn tell(&self, to: UserId, id: String, message: &Message, cx: &mut Context<'_>) -> Result<()> {
        let wrong = |e: serde_json::Error| Error::reject(format!("a message can't be written: {e}"));
        let (kind, data) = match serde_json::to_value(message).map_err(wrong)? {
            Value::Object(mut fields) => (fields.remove("kind"), fields.remove("data")),
            _ => (None, None),
        };
        let signal = CustomerSignal {
            user_id: to,
            signal_id: id,
            at: cx.now(),
            kind: kind.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
            data: data.and_then(|d| d.as_object().cloned()).unwrap_or_default(),
        };
        cx.emit(&self.signals, signal)
    }

    /// Asks the owner of a scarce thing.
    pub(super) fn ask(&self, of: Scarce, amount: i64, user_id: &UserId, command_id: &str, cx: &mut Context<'_>) -> Result<()> {
        let to = of.scope().into();
        let id = format!("asked:{user_id}:{command_id}");
        self.tell(to, id, &Message::LoyaltyGrantAsked { of, amount, user_id: user_id.clone(), command_id: command_id.into() }, cx)
    }

    /// Gives back what was granted for `command_id`.
    pub(super) fn give_back(&self, of: Scarce, amount: i64, user_id: &UserId, command_id: &str, cx: &mut Context<'_>) -> Result<()> {
        let to = of.scope().into();
        self.tell(to, format!("returned:{user_id}:{command_id}"), &Message::LoyaltyGrantReturned { of, amount }, cx)
    }

    /// Hears a message; those of other rooms are not for this one.
    pub(super) fn hear(&self, signal: &CustomerSignal, cx: &mut Context<'_>) -> Result<()> {
        if !signal.kind.starts_with("loyalty_") {
            return Ok(());
        }
        let message = serde_json::from_value(json!({"kind": signal.kind, "data": signal.data}))
            .map_err(|e| Error::reject(format!("{}: {e}", signal.kind)))?;
        let me = &signal.user_id;
        match message {
            Message::LoyaltyGrantAsked { of, amount, user_id, command_id } => {
                let granted = self.grant(&of, amount, cx)?;
                let id = format!("answered:{command_id}");
                self.tell(user_id, id, &Message::LoyaltyGrantAnswered { command_id, granted }, cx)
            }
            Message::LoyaltyGrantReturned { of, amount } => {
                let granted = cx.get(&self.tables.granted, &of.scope())?.unwrap_or(0);
                cx.put(&self.tables.granted, &of.scope(), &granted.saturating_sub(amount).max(0))
            }
            Message::LoyaltyGrantAnswered { command_id, granted } => self.granted(me, &command_id, granted, cx),
            Message::LoyaltyReferralClaimed { referred_id } => self.confirm_referral(me, referred_id, &signal.signal_id, cx),
            Message::LoyaltyReferralAnswered { referrer_id, accepted } => self.referral_answered(me, &referrer_id, accepted, cx),
            Message::LoyaltyReferred { referrer_id, command_id } => self.referred(me, referrer_id, command_id, cx),
            Message::LoyaltyReferredAnswered { referred_id, command_id, refused } => {
                self.answer_refer(me, &referred_id, &command_id, refused, cx)
            }
            Message::LoyaltyReferralEarned { referred_id, order_id } => self.referrer_earns(me, &referred_id, &order_id, cx),
        }
    }

    /// Whether there is `amount` left of a scarce thing; if so, it is taken.
    fn grant(&self, of: &Scarce, amount: i64, cx: &mut Context<'_>) -> Result<bool> {
        let limit = match of {
            Scarce::Reward(id) => self.reward(id, cx).ok().map(|reward| reward.stock.unwrap_or(i64::MAX)),
            Scarce::SpinPrizes(_) => Some(self.rules.spin.monthly_budget.unwrap_or(i64::MAX)),
        };
        let granted = cx.get(&self.tables.granted, &of.scope())?.unwrap_or(0).saturating_add(amount);
        let fits = limit.is_some_and(|limit| granted <= limit);
        if fits {
            cx.put(&self.tables.granted, &of.scope(), &granted)?;
        }
        Ok(fits)
    }

    /// The reward as it is defined now, or what is wrong.
    pub(super) fn reward(&self, id: &str, cx: &Context<'_>) -> Result<rewards::RewardRule, String> {
        let rule = match cx.lookup(&self.reward_records, id) {
            Some(record) => from_fields::<rewards::RewardRule>(&record.fields, rewards::FIELDS)
                .map_err(|e| format!("reward {id} is not well defined: {e}"))?,
            None => self.rules.rewards.get(id).cloned().ok_or_else(|| format!("there is no reward {id}"))?,
        };
        match rule.problem() {
            Some(problem) => Err(format!("reward {id} is not well defined: {problem}")),
            None => Ok(rule),
        }
    }
}
