//! What is stored of a user's account. Sums only: entries, lots and orders have rows of their own.

use serde::{Deserialize, Serialize};
use tillflow_engine_api::Declare;
use tillflow_schemas::{Money, Timestamp, UserId};
use tillflow_state::Table;

/// Name of the table of accounts, `UserId → Account`.
pub const ACCOUNTS: &str = "loyalty.accounts";

/// The table of accounts, for a processor of the same group that runs after this one.
///
/// ```
/// # use tillflow_engine_api::{Context, Declare, Result};
/// # use tillflow_processors::loyalty;
/// # use tillflow_schemas::UserId;
/// fn tier(d: &mut Declare, cx: &Context, user: &UserId) -> Result<Option<String>> {
///     let accounts = loyalty::accounts(d); // in `declare`
///     Ok(cx.get(&accounts, user)?.map(|account| account.tier)) // in `process`; a user without one is in the lowest tier
/// }
/// ```
pub fn accounts(d: &mut Declare<'_>) -> Table<UserId, Account> {
    d.read(ACCOUNTS)
}

/// A user's account: at all times the sums of the ledger's entries, and what the rules need beside them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Points that can be spent. Negative only after a refund of points already spent.
    pub balance: i64,
    /// Points ever earned less those refunded; decides the tier.
    pub lifetime_points: i64,
    /// Name of the tier.
    pub tier: String,
    /// Order totals less refunds, in the shop's currency.
    pub net_spend: Money,
    /// First-seen orders.
    pub orders: u64,
    /// Event time of the first order that was seen.
    pub first_order_at: Option<Timestamp>,
    /// Points of orders within their return window: in neither sum yet.
    pub pending: i64,
    /// Points promised to redemptions that wait for their reward to be granted.
    pub reserved: i64,
    /// Badges awarded, at most as many as are defined.
    pub badges: Vec<String>,
    /// The last year whose birthday brought points; 0 where none did.
    pub birthday_year: i16,
    /// Whether points for signing up were given.
    pub signed_up: bool,
    /// Nothing any more; it stays for the rows' sake, which have no names in them. Version 0.1 held refunds here that now
    /// wait in the shopper's tables.
    pub held: u32,
    /// Numbers entries and lots.
    pub serial: u64,
}

impl Account {
    /// Whether there was an order by then.
    pub fn had_ordered(&self, by: Timestamp) -> bool {
        self.first_order_at.is_some_and(|first| first <= by)
    }
}
