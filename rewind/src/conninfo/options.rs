//! The options of connection strings, and their values.

use walparse::Version;

use super::environment::Environment;
use super::error::ConninfoError;

/// One option of libpq.
#[derive(Debug)]
pub(super) struct ConnOption {
    pub(super) keyword: &'static str,
    /// The environment variable that supplies it.
    env: Option<&'static str>,
    /// Its built-in default, if it is the same in every libpq that has the option: `primary_conninfo` contains it.
    default: Option<&'static str>,
    /// The first version whose libpq has it. Set where it matters, for options with a default.
    since: u32,
    /// Whether its value must never be displayed.
    pub(super) secret: bool,
}

impl ConnOption {
    /// Whether the libpq of this version accepts it.
    pub(super) fn is_known_to(&self, version: Version) -> bool {
        self.since <= version.server_version_num()
    }
}

const fn plain(keyword: &'static str) -> ConnOption {
    ConnOption { keyword, env: None, default: None, since: 0, secret: false }
}

const fn with_env(keyword: &'static str, env: &'static str) -> ConnOption {
    ConnOption { keyword, env: Some(env), default: None, since: 0, secret: false }
}

const fn with_default(keyword: &'static str, env: &'static str, default: &'static str) -> ConnOption {
    ConnOption { keyword, env: Some(env), default: Some(default), since: 0, secret: false }
}

const fn secret(keyword: &'static str, env: Option<&'static str>) -> ConnOption {
    ConnOption { keyword, env, default: None, since: 0, secret: true }
}

/// An option that libpq has since this `server_version_num`.
const fn since(version: u32, option: ConnOption) -> ConnOption {
    ConnOption { since: version, ..option }
}

/// All options of libpq up to version 18, in the order in which it writes them (its documentation, "Parameter Key Words"
/// and "Environment Variables").
pub(super) static OPTIONS: &[ConnOption] = &[
    with_env("service", "PGSERVICE"),
    with_env("user", "PGUSER"),
    secret("password", Some("PGPASSWORD")),
    since(100_000, with_env("passfile", "PGPASSFILE")),
    since(130_000, with_default("channel_binding", "PGCHANNELBINDING", "prefer")),
    with_env("connect_timeout", "PGCONNECT_TIMEOUT"),
    with_env("dbname", "PGDATABASE"),
    with_env("host", "PGHOST"),
    with_env("hostaddr", "PGHOSTADDR"),
    with_default("port", "PGPORT", "5432"),
    with_env("client_encoding", "PGCLIENTENCODING"),
    with_env("options", "PGOPTIONS"),
    with_env("application_name", "PGAPPNAME"),
    plain("fallback_application_name"),
    plain("keepalives"),
    plain("keepalives_idle"),
    plain("keepalives_interval"),
    plain("keepalives_count"),
    plain("tcp_user_timeout"),
    with_default("sslmode", "PGSSLMODE", "prefer"),
    since(170_000, with_default("sslnegotiation", "PGSSLNEGOTIATION", "postgres")),
    // Until version 10 the default was 1.
    since(110_000, with_default("sslcompression", "PGSSLCOMPRESSION", "0")),
    with_env("sslcert", "PGSSLCERT"),
    with_env("sslkey", "PGSSLKEY"),
    with_env("sslcertmode", "PGSSLCERTMODE"),
    secret("sslpassword", None),
    with_env("sslrootcert", "PGSSLROOTCERT"),
    with_env("sslcrl", "PGSSLCRL"),
    with_env("sslcrldir", "PGSSLCRLDIR"),
    since(140_000, with_default("sslsni", "PGSSLSNI", "1")),
    with_env("requirepeer", "PGREQUIREPEER"),
    with_env("require_auth", "PGREQUIREAUTH"),
    with_env("min_protocol_version", "PGMINPROTOCOLVERSION"),
    with_env("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    since(130_000, with_default("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", "TLSv1.2")),
    with_env("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    since(120_000, with_default("gssencmode", "PGGSSENCMODE", "prefer")),
    with_default("krbsrvname", "PGKRBSRVNAME", "postgres"),
    with_env("gsslib", "PGGSSLIB"),
    since(160_000, with_default("gssdelegation", "PGGSSDELEGATION", "0")),
    plain("replication"),
    since(100_000, with_default("target_session_attrs", "PGTARGETSESSIONATTRS", "any")),
    since(160_000, with_default("load_balance_hosts", "PGLOADBALANCEHOSTS", "disable")),
    secret("scram_client_key", None),
    secret("scram_server_key", None),
    plain("oauth_issuer"),
    plain("oauth_client_id"),
    secret("oauth_client_secret", None),
    plain("oauth_scope"),
    plain("sslkeylogfile"),
];

/// Whether the option's value must never be displayed.
pub(super) fn is_secret(keyword: &str) -> bool {
    OPTIONS.iter().any(|option| option.keyword == keyword && option.secret)
}

/// The origin of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Text,
    Service,
    Environment,
    /// A built-in default.
    Default,
}

/// A value and its origin.
#[derive(Clone)]
struct Value {
    text: String,
    origin: Origin,
}

/// The values of all options, in the order of [`OPTIONS`]. Not `Debug`, because it contains passwords.
#[derive(Clone)]
pub(super) struct Values(Vec<Option<Value>>);

impl Values {
    /// No values.
    pub(super) fn new() -> Values {
        Values(OPTIONS.iter().map(|_| None).collect())
    }

    /// Sets an option given in the string; the last one counts. Returns `false` if there is no such option.
    #[must_use]
    pub(super) fn set(&mut self, keyword: &str, text: String) -> bool {
        let (keyword, text) = match keyword {
            // The predecessor of sslmode, before version 8.0.
            "requiressl" if text.starts_with('1') => ("sslmode", "require".to_owned()),
            "requiressl" => ("sslmode", "prefer".to_owned()),
            _ => (keyword, text),
        };
        let Some(slot) = self.slot(keyword) else { return false };
        *slot = Some(Value { text, origin: Origin::Text });
        true
    }

    /// Sets an option given in a service, unless it has a value (even an empty one). Returns `false` if there is no such
    /// option.
    #[must_use]
    pub(super) fn set_if_absent(&mut self, keyword: &str, text: &str) -> bool {
        let Some(slot) = self.slot(keyword) else { return false };
        slot.get_or_insert_with(|| Value { text: text.to_owned(), origin: Origin::Service });
        true
    }

    /// Sets an option that is not set or empty.
    pub(super) fn set_default(&mut self, keyword: &str, text: String) {
        if let Some(slot) = self.slot(keyword)
            && slot.as_ref().is_none_or(|value| value.text.is_empty())
        {
            *slot = Some(Value { text, origin: Origin::Default });
        }
    }

    /// Unsets an option.
    pub(super) fn remove(&mut self, keyword: &str) {
        if let Some(slot) = self.slot(keyword) {
            *slot = None;
        }
    }

    /// Completes the values from the environment and the built-in defaults.
    pub(super) fn complete(&mut self, environment: &dyn Environment) {
        for (option, slot) in OPTIONS.iter().zip(&mut self.0).filter(|(_, slot)| slot.is_none()) {
            let given = option.env.and_then(|name| environment.var(name)).or_else(|| {
                // The predecessor of PGSSLMODE, before version 8.0.
                let required = environment.var("PGREQUIRESSL").is_some_and(|value| value.starts_with('1'));
                (required && option.keyword == "sslmode").then(|| "require".to_owned())
            });
            *slot = match given {
                Some(text) => Some(Value { text, origin: Origin::Environment }),
                None => option.default.map(|text| Value { text: text.to_owned(), origin: Origin::Default }),
            };
        }
        // As in libpq, the system's roots imply the strongest verification.
        if self.get("sslrootcert") == Some("system")
            && let Some(Some(value)) = self.slot("sslmode")
            && value.origin == Origin::Default
        {
            value.text = "verify-full".to_owned();
        }
    }

    /// The value of an option; `None` if it is not set or empty.
    pub(super) fn get(&self, keyword: &str) -> Option<&str> {
        self.raw(keyword).filter(|text| !text.is_empty())
    }

    /// The value of an option, even if it is empty.
    pub(super) fn raw(&self, keyword: &str) -> Option<&str> {
        self.value(keyword).map(|value| value.text.as_str())
    }

    /// The origin of an option's value.
    pub(super) fn origin(&self, keyword: &str) -> Option<Origin> {
        self.value(keyword).map(|value| value.origin)
    }

    /// All options that are not empty, with their origins.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static ConnOption, &str, Origin)> {
        let pairs = OPTIONS.iter().zip(&self.0);
        pairs.filter_map(|(option, slot)| {
            let value = slot.as_ref().filter(|value| !value.text.is_empty())?;
            Some((option, value.text.as_str(), value.origin))
        })
    }

    /// All options that are not empty and not defaults.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static ConnOption, &str)> {
        self.all().filter(|(_, _, origin)| *origin != Origin::Default).map(|(option, text, _)| (option, text))
    }

    /// Checks an option that takes one of several words. An empty value is an error.
    pub(super) fn check_word(&self, keyword: &'static str, words: &[&str]) -> Result<(), ConninfoError> {
        match self.raw(keyword) {
            Some(value) if !words.contains(&value) => {
                Err(ConninfoError::Word { keyword, value: value.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Parses an option that takes an integer.
    pub(super) fn integer(&self, keyword: &'static str) -> Result<Option<i32>, ConninfoError> {
        let Some(value) = self.raw(keyword) else { return Ok(None) };
        let bad = |_| ConninfoError::Integer { keyword, value: value.to_owned() };
        value.trim().parse().map(Some).map_err(bad)
    }

    fn value(&self, keyword: &str) -> Option<&Value> {
        let at = OPTIONS.iter().position(|option| option.keyword == keyword)?;
        self.0.get(at)?.as_ref()
    }

    fn slot(&mut self, keyword: &str) -> Option<&mut Option<Value>> {
        let at = OPTIONS.iter().position(|option| option.keyword == keyword)?;
        self.0.get_mut(at)
    }
}
