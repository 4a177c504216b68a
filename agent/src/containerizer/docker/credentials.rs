//! Who to be at a registry: the file that `docker login` writes.

use std::{collections::HashMap, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bollard::auth::DockerCredentials;
use serde::Deserialize;

/// The registry of images that name none.
const DEFAULT_REGISTRY: &str = "docker.io";

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Auth>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// The registry that an image comes from.
pub(super) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DEFAULT_REGISTRY,
    }
}

/// What the file holds for an image's registry; none when it names another ones only.
///
/// # Errors
/// A sentence that names the file.
pub(super) fn find(file: &Path, image: &str) -> Result<Option<DockerCredentials>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("--docker-config {}: {why}", file.display());
    let text = fs::read(file).map_err(|error| wrong(&error))?;
    // Its text holds secrets: an error says where, and not what.
    let config: Config = serde_json::from_slice(&text).map_err(|error| {
        wrong(&format!("line {}: not what `docker login` writes", error.line()))
    })?;
    let registry = registry(image);
    let found = config.auths.iter().find(|(key, _)| same(key, registry));
    if config.helpers.keys().any(|key| same(key, registry))
        || (config.store.is_some() && found.is_none_or(|(_, auth)| is_empty(auth)))
    {
        return Err(wrong(&format!(
            "the credentials of {registry} are in a helper program (credsStore, credHelpers), \
             which is not supported; write them into auths"
        )));
    }
    let Some((key, auth)) = found else { return Ok(None) };
    let (mut username, mut password) = (auth.username.clone(), auth.password.clone());
    if let Some(auth) = auth.auth.as_deref().filter(|auth| !auth.is_empty()) {
        let pair = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
        let (name, word) = pair.ok_or_else(|| {
            wrong(&format!("auths `{key}`: auth is not the base64 form of USER:PASSWORD"))
        })?;
        // A zero byte pads what docker wrote long ago.
        username = Some(name.to_owned());
        password = Some(word.trim_end_matches('\0').to_owned());
    }
    let serveraddress = match registry {
        DEFAULT_REGISTRY => "https://index.docker.io/v1/",
        other => other,
    };
    Ok(Some(DockerCredentials {
        username,
        password,
        identitytoken: auth.identitytoken.clone(),
        serveraddress: Some(serveraddress.to_owned()),
        ..DockerCredentials::default()
    }))
}

fn is_empty(auth: &Auth) -> bool {
    auth.auth.is_none() && auth.password.is_none() && auth.identitytoken.is_none()
}

/// Keys are hosts, or URLs of hosts.
fn same(key: &str, registry: &str) -> bool {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    host == registry || (registry == DEFAULT_REGISTRY && host == "index.docker.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(config: &str, image: &str) -> Result<Option<DockerCredentials>, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, config).unwrap();
        find(&file, image)
    }

    #[test]
    fn the_registry_is_the_first_part_if_it_looks_like_a_host() {
        for (image, expected) in [
            ("busybox:latest", "docker.io"),
            ("library/busybox", "docker.io"),
            ("localhost/a", "localhost"),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000"),
            ("quay.io/a@sha256:0", "quay.io"),
        ] {
            assert_eq!(registry(image), expected, "{image}");
        }
    }

    #[test]
    fn users_are_found_by_host_in_both_forms() {
        let config = r#"{"auths": {
            "r.example:5000": {"auth": "bWU6c2U6Y3JldA=="},
            "https://index.docker.io/v1/": {"username": "u", "password": "p"}}}"#;
        let found = find_in(config, "r.example:5000/a").unwrap().unwrap();
        assert_eq!(found.username.as_deref(), Some("me"));
        assert_eq!(found.password.as_deref(), Some("se:cret"));
        assert_eq!(found.serveraddress.as_deref(), Some("r.example:5000"));
        let found = find_in(config, "busybox").unwrap().unwrap();
        assert_eq!(found.username.as_deref(), Some("u"));
        assert_eq!(find_in(config, "quay.io/a").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_names_the_file_and_no_secret() {
        for (config, part) in [
            ("{", "line 1: not what `docker login` writes"),
            (r#"{"auths": {"quay.io": {"auth": "secret"}}}"#, "auths `quay.io`: auth is not"),
            (r#"{"auths": {"quay.io": {}}, "credsStore": "pass"}"#, "in a helper program"),
            (r#"{"credHelpers": {"quay.io": "x"}}"#, "in a helper program"),
        ] {
            let error = find_in(config, "quay.io/a").unwrap_err();
            assert!(error.starts_with("--docker-config /") && error.contains(part), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = find(Path::new("/nowhere/config.json"), "a").unwrap_err();
        assert!(error.contains("/nowhere/config.json: No such file"), "{error}");
    }
}
