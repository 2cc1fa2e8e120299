//! The rows that are kept beside the account, one a thing.

use super::account::{ACCOUNTS, Account};
use serde::{Deserialize, Serialize};
use tillflow_engine_api::Declare;
use tillflow_schemas::{EntryKind, LoyaltyUpdate, Money, OrderId, ProductId, Timestamp, UserId};
use tillflow_state::Table;

/// A lot's place: when it expires (milliseconds; the end of time where it never does), and its number. The lots of a
/// user are so in the order in which they expire: the oldest first.
pub(super) type LotId = (i64, u64);

/// Where a lot lies that never expires.
pub(super) const NEVER: i64 = i64::MAX;

/// The room's tables.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    pub accounts: Table<UserId, Account>,
    /// By a number that counts down, so that the newest comes first.
    pub ledger: Table<(UserId, u64), StoredEntry>,
    /// Points that can be spent, by when they expire. Their sum is the balance, or nothing where that is negative.
    pub lots: Table<(UserId, i64, u64), Lot>,
    pub orders: Table<(UserId, OrderId), OrderPoints>,
    /// Orders within their return window, by time.
    pub pending: Table<(UserId, i64, OrderId), ()>,
    /// By challenge and month.
    pub progress: Table<(UserId, String, String), Progress>,
    /// By entry id.
    pub redemptions: Table<(UserId, String), Redemption>,
    /// Commands that wait for a grant, by command id.
    pub requests: Table<(UserId, String), Request>,
    /// By the referred user.
    pub referrals: Table<UserId, Referral>,
    pub profiles: Table<UserId, Profile>,
    pub reviewed: Table<(UserId, ProductId), ()>,
    /// What was granted of a scarce thing, by scope. Only in the partition that owns the scope.
    pub granted: Table<String, i64>,
}

impl Tables {
    pub fn declare(d: &mut Declare<'_>) -> Self {
        Self {
            accounts: d.store(ACCOUNTS),
            ledger: d.store("loyalty.ledger"),
            lots: d.store("loyalty.lots"),
            orders: d.store("loyalty.orders"),
            pending: d.store("loyalty.pending"),
            progress: d.store("loyalty.progress"),
            redemptions: d.store("loyalty.redemptions"),
            requests: d.store("loyalty.requests"),
            referrals: d.store("loyalty.referrals"),
            profiles: d.store("loyalty.profiles"),
            reviewed: d.store("loyalty.reviewed"),
            granted: d.store("loyalty.granted"),
        }
    }
}

/// An entry of the ledger as stored: the update without its user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredEntry {
    pub entry_id: String,
    pub kind: EntryKind,
    pub points: i64,
    pub lifetime_change: i64,
    pub balance: i64,
    pub lifetime_points: i64,
    pub tier: String,
    pub order_id: Option<OrderId>,
    pub command_id: Option<String>,
    pub note: String,
    pub at: Timestamp,
}

impl StoredEntry {
    /// As it was emitted.
    pub fn update(self, user_id: UserId) -> LoyaltyUpdate {
        let Self { entry_id, kind, points, lifetime_change, balance, lifetime_points, tier, order_id, command_id, note, at } = self;
        LoyaltyUpdate { entry_id, user_id, kind, points, lifetime_change, balance, lifetime_points, tier, order_id, command_id, note, at }
    }
}

/// Points that were earned together and expire together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Lot {
    /// What is left of them, above 0.
    pub remaining: i64,
    /// The entry that brought them.
    pub entry_id: String,
    /// The order that earned them.
    pub order_id: Option<OrderId>,
    /// Whether the user was warned of the expiry.
    pub warned: bool,
}

/// What refunds need of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OrderPoints {
    /// When.
    pub at: Timestamp,
    /// What it earned.
    pub points: i64,
    /// Its total in the shop's currency.
    pub total: Money,
    /// The currency it stated: also that of a refund that states none.
    pub currency: Option<String>,
    /// Refunded so far, at most the total.
    pub refunded: Money,
    /// Points taken back so far, by refunds that name it.
    pub clawed: i64,
    /// Points taken back while pending, by refunds that name no order.
    pub cancelled: i64,
    /// Points of its lot that expired.
    pub expired: i64,
    /// Of those, how many refunds did not take from the balance a second time.
    pub forgiven: i64,
    /// Its lot, also when nothing is left of it; none where the order filled a negative balance.
    pub lot: Option<LotId>,
    /// Whether it is within its return window.
    pub pending: bool,
    /// Spins it granted.
    pub spins: u32,
    /// Which of them were used, by bit.
    pub spun: u64,
}

impl OrderPoints {
    /// What is left to release, or to take back.
    pub fn left(&self) -> i64 {
        self.points - self.clawed - self.cancelled
    }
}

/// Progress in a challenge within one month.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub reached: Money,
    pub done: bool,
}

/// A reward that was paid for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Redemption {
    pub reward_id: String,
    pub points: i64,
    /// When the youngest of the points it took would have expired.
    pub expires_at: i64,
    /// Whether it was taken from a limited stock.
    pub stocked: bool,
    pub reversed: bool,
}

/// A command that waits for a grant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    Reward { reward_id: String, name: String, points: i64 },
    Spin { spin_id: String, order_id: OrderId, number: u32 },
}

/// Who referred a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Referral {
    pub referrer_id: UserId,
    /// Whether the referrer was found to be a customer.
    pub confirmed: bool,
    /// The first order, where it came before the referrer was found to be one.
    pub first_order: Option<OrderId>,
}

/// What the programme needs to know of a person.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    /// Month and day.
    pub birthday: Option<(i8, i8)>,
    /// ISO 3166 alpha-2.
    pub country: Option<String>,
}
