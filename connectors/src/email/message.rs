//! From a trigger to a mail, by the rules of RFC 5322 and RFC 8058.

use super::{EmailError, Sender, Templates};
use lettre::message::{
    Mailbox, MultiPart, SinglePart,
    header::{ContentType, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tillflow_schemas::EmailTrigger;

/// A mail, ready to be sent any way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id of its trigger: the left side of its Message-ID.
    pub trigger_id: String,
    /// Name and address it comes from.
    pub from: Mailbox,
    /// The address it goes to.
    pub to: Mailbox,
    /// One line.
    pub subject: String,
    /// The HTML form.
    pub html: String,
    /// The plain form.
    pub text: String,
    /// Where one click unsubscribes.
    pub unsubscribe_url: String,
    /// When it was decided: its Date.
    pub date: SystemTime,
}

/// Makes the mail of a trigger.
///
/// # Errors
/// No template of its name, a template that fails, or an address that is none.
pub fn render(trigger: &EmailTrigger, templates: &Templates, sender: &Sender) -> Result<Message, EmailError> {
    let wrong = |reason: String| EmailError::Trigger { trigger_id: trigger.trigger_id.clone(), reason };
    let to = trigger.to.parse().map_err(|e| wrong(format!("to '{}' is not an address: {e}", trigger.to)))?;
    let unsubscribe_url = sender.unsubscribe_url(trigger.user_id.as_str(), &trigger.trigger_id);
    let mut context = trigger.data.clone();
    context.insert("campaign_id".into(), trigger.campaign_id.as_str().into());
    context.insert("unsubscribe_url".into(), unsubscribe_url.as_str().into());
    context.insert("sender".into(), json!({"name": sender.name(), "postal_address": sender.settings.postal_address}));
    let rendered = templates.render(&trigger.template, &Value::Object(context))?;
    let since_epoch = Duration::from_millis(u64::try_from(trigger.send_after.millis()).unwrap_or(0));
    Ok(Message {
        trigger_id: trigger.trigger_id.clone(),
        from: sender.from.clone(),
        to,
        subject: rendered.subject,
        html: rendered.html,
        text: rendered.text,
        unsubscribe_url,
        date: SystemTime::UNIX_EPOCH + since_epoch,
    })
}

impl Message {
    /// The mail's bytes, as SMTP carries them and `.eml` files hold them: always the same for the same mail.
    ///
    /// # Errors
    /// When it can't be a mail, such as with an address that headers can't hold.
    pub fn to_eml(&self) -> Result<Vec<u8>, EmailError> {
        let header = |name: &'static str, value: String| HeaderValue::new(HeaderName::new_from_ascii_str(name), value);
        let part = |kind: ContentType, body: &str| SinglePart::builder().header(kind).body(body.to_owned());
        let built = lettre::Message::builder()
            .from(self.from.clone())
            .to(self.to.clone())
            .subject(self.subject.as_str())
            .date(self.date)
            .message_id(Some(format!("<{}@{}>", self.trigger_id, self.from.email.domain())))
            .raw_header(header("List-Unsubscribe", format!("<{}>", self.unsubscribe_url)))
            .raw_header(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".into()))
            .multipart(
                MultiPart::alternative()
                    .boundary(format!("tillflow-{}", self.trigger_id))
                    .singlepart(part(ContentType::TEXT_PLAIN, &self.text))
                    .singlepart(part(ContentType::TEXT_HTML, &self.html)),
            );
        let wrong = |e: lettre::error::Error| EmailError::Trigger { trigger_id: self.trigger_id.clone(), reason: e.to_string() };
        Ok(built.map_err(wrong)?.formatted())
    }
}
