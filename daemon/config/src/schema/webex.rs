//! What is set about Webex.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::ConfigError;
use crate::layers::Merged;
use crate::macros::settings;
use crate::setting::{KeySpec, Setting, read_within};
use crate::values::Texts;

settings! {
    /// Webex: users from the Control Hub, every day, and its call detail records, by which it shows that no call is missing. An administrator
    /// authorises once, with `callvaultctl webex authorise`.
    pub struct Webex in "webex." {
        /// Switches it on.
        enabled: bool = "false",
        /// Where Webex's interfaces are.
        url: String = "\"https://webexapis.com/v1\"",
        /// Where its call detail records are.
        records_url: String = "\"https://analytics-calling.webexapis.com/v1\"",
        /// The id of your integration, or of your Service App, as the developer site of Webex shows it.
        client_id: String = "\"\"",
        /// A file with its secret, one line. Empty: the systemd credential `webex.secret` (`LoadCredential=`). It is read whenever it is
        /// needed.
        client_secret: Option<PathBuf> = "\"\"",
        /// Where the browser comes back to after an administrator has agreed, exactly as it is registered with the integration. An address
        /// on `localhost` is answered by `callvaultctl webex authorise` itself, where the browser runs on this machine; otherwise the
        /// address that the browser shows is pasted.
        redirect_url: String = "\"http://localhost:8990/callback\"",
        /// What is asked for, separated by blanks; register the same with the integration. `spark-admin:calling_cdr_read` is for `records`
        /// and needs an administrator with the role for the detailed call history; take it away where `records` is off.
        scopes: String = "\"spark-admin:people_read spark-admin:organizations_read spark-admin:locations_read spark-admin:telephony_config_read spark-admin:calling_cdr_read\"",
        /// Ids of the organisations whose people are read. Empty: the one of the administrator who authorised.
        organisations: Texts = "[]",
        /// Only people of locations with these names. Empty: of all.
        locations: Texts = "[]",
        /// Only people with Webex Calling, which is who has a location: others have no calls to be recorded.
        calling_only: bool = "true",
        /// Whether workspaces with Webex Calling (a lobby, a meeting room) become users as well, so that their calls have an owner. Give them
        /// groups, so that somebody sees them. It needs the scope `spark-admin:workspaces_read`; add it to `scopes`, and authorise again.
        workspaces: bool = "false",
        /// The same for virtual lines: numbers that are on telephones of several people.
        virtual_lines: bool = "false",
        /// At what time of the day users are synchronised, by `organisation.time_zone`. Empty: only when `callvaultctl users sync` says so.
        sync_at: String = "\"03:30\"",
        /// By up to how much later, each day anew, so that not everybody asks Webex at once.
        sync_jitter: Duration = "\"30m\"" in "0s" ..= "6h",
        /// Whether call detail records are read and compared with what is held.
        records: bool = "false",
        /// How often they are read. Webex allows about one request a minute.
        records_interval: Duration = "\"5m\"" in "1m" ..= "1h",
        /// For how long they are kept, sealed, to be compared again.
        records_kept: Duration = "\"35d\"" in "1d" ..= "400d",
        /// Names of the recording platform by which Webex knows this appliance, as its records show them. Empty: every one but Webex's own.
        platforms: Texts = "[]",
        /// By how much a recording may be shorter than its call before it counts as short: the recorder is called after the answer, and
        /// records are in whole seconds.
        tolerance: Duration = "\"5s\"" in "0s" ..= "10m",
        /// As `analytics.proxy`.
        proxy: String = "\"\"",
        /// As `analytics.proxy_credentials`.
        proxy_credentials: Option<PathBuf> = "\"\"",
        /// A PEM file of authorities to be trusted beside those of the system: for a proxy that opens TLS.
        ca: Option<PathBuf> = "\"\"",
    }
}

settings! {
    /// What a synchronisation with Webex does with each field of a user: `keep` leaves what is there; `when adding VALUE` sets this value when the
    /// user is added, and never again; `every time SOURCE` takes it from Webex every time. Where two sources are named, the second is for
    /// those of whom the first has nothing; of numbers, one with a country code goes before a short one.
    pub struct WebexRules in "webex_rules." {
        /// The name to sign in with: always the e-mail's first half.
        user_name: String = "\"every time e-mail user\"",
        /// Its domain: always the e-mail's second half.
        domain: String = "\"every time e-mail domain\"",
        /// Always as Webex has it.
        first_name: String = "\"every time first name\"",
        /// Always as Webex has it.
        last_name: String = "\"every time last name\"",
        /// `keep`, or `when adding VALUE`.
        pin: String = "\"keep\"",
        /// `keep`, or `when adding VALUE`.
        initial_password: String = "\"keep\"",
        /// `keep`, or `when adding VALUE`, for example `when adding en`.
        preferred_language: String = "\"keep\"",
        /// `every time extension or phone number`, `every time phone number or extension`, or `keep`. With `numbers.country_code` before it.
        first_extension: String = "\"every time extension or phone number\"",
        /// `every time work phone`, as `first_extension`, `every time e-mail`, or `keep`.
        extension_alias: String = "\"every time work phone\"",
        /// `every time native user id`, which is by what Webex names the user in calls, or `keep`. It takes one request for each user
        /// when they are added, when Webex says that they changed, and once a week.
        device_name: String = "\"every time native user id\"",
        /// As `device_name`.
        preferred_device_name: String = "\"every time native user id\"",
        /// `every time e-mail`, or `keep`.
        email: String = "\"every time e-mail\"",
        /// `every time organisation name`, `every time location name`, or `keep`.
        department: String = "\"every time organisation name\"",
        /// As `department`.
        cost_centre: String = "\"every time organisation name\"",
        /// As `department`.
        office_location: String = "\"every time location name\"",
        /// `every time e-mail`, or `keep`.
        presence_uri: String = "\"every time e-mail\"",
        /// `every time e-mail`, or `keep`.
        microsoft_uri: String = "\"every time e-mail\"",
        /// `every time e-mail`, or `keep`.
        webex_uri: String = "\"every time e-mail\"",
        /// `every time avatar`, or `keep`. PNG, JPEG or BMP, up to `directory.picture_max`.
        picture: String = "\"every time avatar\"",
        /// `every time recording mode`, or `keep`. Webex itself decides by it which calls it sends; here it matters for other clients.
        recording_mode: String = "\"keep\"",
    }
}
