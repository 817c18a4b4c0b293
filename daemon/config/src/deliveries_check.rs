//! Whether what is set for uploads, posts and the export folder goes together. What the files hold is checked where they are used.

use std::net::IpAddr;

use crate::Config;
use crate::cross_check::Findings;

/// Characters of a language's name, as BCP 47 has them.
const LANGUAGE_CHARS_MAX: usize = 35;

/// What makes the settings unusable. What is wrong with a sink that is switched off is wrong all the same: it is told before somebody
/// switches it on.
pub(crate) fn errors(config: &Config, findings: &mut Findings<'_>) {
    analytics(config, findings);
    provider(config, findings);
    webhook(config, findings);
    let folder = &config.export_folder;
    if folder.enabled && folder.path.is_none() {
        let message = "export_folder.enabled is true, but there is no folder; name it in export_folder.path";
        findings.refuse(&["export_folder.enabled", "export_folder.path"], message);
    }
    if let Some(path) = &folder.path
        && [config.data_dir.clone(), config.store_path()]
            .iter()
            .any(|ours| path.starts_with(ours) || ours.starts_with(path))
    {
        let message = "export_folder.path lies in data_dir or store.path, or they in it; MP3s that anybody can play do not belong beside sealed recordings: name another folder";
        findings.refuse(&["export_folder.path"], message);
    }
}

/// Signing in at a provider: all of it or nothing.
fn provider(config: &Config, findings: &mut Findings<'_>) {
    let oidc = &config.oidc;
    url("oidc.issuer", &oidc.issuer, findings);
    url("oidc.redirect", &oidc.redirect, findings);
    proxy("oidc.proxy", &oidc.proxy, findings);
    if oidc.issuer.is_empty() {
        return;
    }
    let needed = [
        ("oidc.client_id", &oidc.client_id, "the identifier that the provider gave"),
        ("oidc.redirect", &oidc.redirect, "the portal's address and /sign-in/back"),
        ("oidc.claim", &oidc.claim, "the claim with the e-mail, such as \"email\""),
    ];
    for (key, value, what) in needed {
        if value.is_empty() {
            findings.refuse(&[key, "oidc.issuer"], format!("{key} is empty, but oidc.issuer is set; write {what}"));
        }
    }
    if !oidc.scope.split(' ').any(|word| word == "openid") {
        findings.refuse(&["oidc.scope"], "lacks openid, without which there is no sign-in; write \"openid email\"");
    }
    if !oidc.redirect.is_empty() && !oidc.redirect.ends_with("/sign-in/back") {
        findings.refuse(&["oidc.redirect"], "is not where the portal takes people back; it ends with /sign-in/back");
    }
}

fn analytics(config: &Config, findings: &mut Findings<'_>) {
    let analytics = &config.analytics;
    for (key, value, what) in [
        ("analytics.url", &analytics.url, "the service's address"),
        ("analytics.token_url", &analytics.token_url, "where tokens are given out"),
        ("analytics.client_id", &analytics.client_id, "the client's identifier"),
        ("analytics.scope", &analytics.scope, "what tokens are to be good for"),
    ] {
        if analytics.enabled && value.is_empty() {
            findings.refuse(
                &[key, "analytics.enabled"],
                format!("{key} is empty, but analytics.enabled is true; write {what}"),
            );
        }
    }
    let user = &analytics.fallback_user;
    if !user.is_empty() && user.split_once('@').is_none_or(|(name, host)| name.is_empty() || host.is_empty()) {
        findings
            .refuse(&["analytics.fallback_user"], "is no e-mail address; write one that the service knows, or \"\"");
    }
    url("analytics.url", &analytics.url, findings);
    url("analytics.token_url", &analytics.token_url, findings);
    proxy("analytics.proxy", &analytics.proxy, findings);
    let language = &analytics.language;
    let is_language =
        language.len() <= LANGUAGE_CHARS_MAX && language.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !is_language {
        findings.refuse(&["analytics.language"], "is no language; write its tag, \"en-US\", or \"\"");
    }
    if analytics.speakers == 1 {
        findings.refuse(&["analytics.speakers"], "the service takes 2 to 10; write 0 for as many as there are tracks");
    }
    if analytics.proxy_credentials.is_some() && analytics.proxy.is_empty() {
        findings.refuse(&["analytics.proxy_credentials"], "is set, but analytics.proxy is empty; name the proxy");
    }
}

fn webhook(config: &Config, findings: &mut Findings<'_>) {
    let webhook = &config.webhook;
    if webhook.enabled && webhook.url.is_empty() {
        findings.refuse(
            &["webhook.url", "webhook.enabled"],
            "webhook.url is empty, but webhook.enabled is true; write where recordings are posted to",
        );
    }
    url("webhook.url", &webhook.url, findings);
    proxy("webhook.proxy", &webhook.proxy, findings);
    if webhook.proxy_credentials.is_some() && webhook.proxy.is_empty() {
        findings.refuse(&["webhook.proxy_credentials"], "is set, but webhook.proxy is empty; name the proxy");
    }
}

/// The value is not repeated: what is in it may be a secret.
pub(crate) fn url(key: &'static str, text: &str, findings: &mut Findings<'_>) {
    if text.is_empty() {
        return;
    }
    let Some((scheme, host)) = scheme_and_host(text) else {
        findings.refuse(&[key], "is not a URL; write it whole, \"https://host/path\", without a user's name in it");
        return;
    };
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if scheme != "https" && !(scheme == "http" && is_here) {
        findings.refuse(&[key], "is not https: whoever listens would have recordings and secrets; only on this machine itself (127.0.0.1, [::1], localhost) may it be http");
    }
}

pub(crate) fn proxy(key: &'static str, text: &str, findings: &mut Findings<'_>) {
    if !text.is_empty() && scheme_and_host(text).is_none_or(|(scheme, _)| scheme != "http") {
        let section = key.split('.').next().unwrap_or_default();
        findings.refuse(&[key], format!("is not a proxy; write \"http://host:port\"; a user and a password belong into the file of {section}.proxy_credentials"));
    }
}

/// The scheme and the host without brackets; none where there is a user's name, or no host.
fn scheme_and_host(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    if text.contains(char::is_whitespace) || authority.contains('@') {
        return None;
    }
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then_some((scheme, host))
}

/// What is allowed but probably not meant.
pub(crate) fn remarks(config: &Config, remarks: &mut Vec<String>) {
    if config.uploads.total_timeout < config.uploads.timeout {
        remarks.push("uploads.total_timeout is shorter than uploads.timeout, which never comes to matter then".into());
    }
    if !config.analytics.enabled && !config.analytics.client_id.is_empty() {
        remarks.push("analytics.client_id is set, but analytics.enabled is false: nothing is uploaded".into());
    }
    if !config.webhook.enabled && !config.webhook.url.is_empty() {
        remarks.push("webhook.url is set, but webhook.enabled is false: nothing is posted".into());
    }
}
