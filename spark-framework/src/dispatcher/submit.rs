//! `mezz spark submit --deploy-mode cluster`: reads what `spark-submit` would, and
//! hands it to a dispatcher. Needs no Spark on this machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{Client, ClientError, NewSubmission, job::NO_RESOURCE, properties};

/// Options of `spark-submit` that are settings by another name.
const SETTINGS: [(&str, &str); 20] = [
    ("--name", "spark.app.name"),
    ("--jars", "spark.jars"),
    ("--files", "spark.files"),
    ("--py-files", "spark.submit.pyFiles"),
    ("--archives", "spark.archives"),
    ("--packages", "spark.jars.packages"),
    ("--exclude-packages", "spark.jars.excludes"),
    ("--repositories", "spark.jars.repositories"),
    ("--driver-memory", "spark.driver.memory"),
    ("--driver-cores", "spark.driver.cores"),
    ("--driver-java-options", "spark.driver.extraJavaOptions"),
    ("--driver-library-path", "spark.driver.extraLibraryPath"),
    ("--driver-class-path", "spark.driver.extraClassPath"),
    ("--executor-memory", "spark.executor.memory"),
    ("--executor-cores", "spark.executor.cores"),
    ("--total-executor-cores", "spark.cores.max"),
    ("--num-executors", "spark.executor.instances"),
    ("--principal", "spark.kerberos.principal"),
    ("--keytab", "spark.kerberos.keytab"),
    ("--priority", "spark.mezz.dispatcher.priority"),
];

/// Settings that name files, between commas, of which those of this machine are
/// uploaded.
const FILE_LISTS: [&str; 4] =
    ["spark.jars", "spark.files", "spark.submit.pyFiles", "spark.archives"];

/// How often files are uploaded when dispatchers lose what they have taken.
const TRIES: u32 = 3;
/// The setting that names the dispatcher for clients.
const DISPATCHER: &str = "spark.mezz.dispatcher";

/// Arguments that cannot be followed.
#[derive(Debug, Error)]
pub enum ArgumentError {
    /// An option that nobody knows, or that makes no sense here.
    #[error("{option}: {why}")]
    Option {
        /// As given.
        option: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No application.
    #[error("give the application: a .py file, or a .jar file and its --class")]
    NoApplication,
    /// Neither Python nor a jar, and no class.
    #[error("--class is missing: {0} is neither a .py nor a .jar file, so say what is to be run")]
    NoClass(String),
    /// A file of settings that cannot be read.
    #[error("cannot read {}", path.display())]
    Properties {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that is not on this machine.
    #[error(
        "{0} is no file of this machine; for one that is on every agent write local:/path, or \
         give a URI"
    )]
    NoFile(String),
}

/// A submission as the user wrote it: files of this machine are not yet uploaded.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSubmit {
    new: NewSubmission,
    /// Whether to wait for the driver's end: `--wait`, or Spark's setting
    /// `spark.standalone.submit.waitAppCompletion`.
    pub wait: bool,
}

impl ClusterSubmit {
    /// Reads the arguments of `spark-submit`; `defaults` is the file of settings that
    /// is read when no `--properties-file` is given, if it is there.
    ///
    /// # Errors
    /// [`ArgumentError`] names the option that is wrong.
    pub fn read(args: &[String], defaults: Option<&Path>) -> Result<Self, ArgumentError> {
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        let mut conf: BTreeMap<String, String> = BTreeMap::new();
        let mut properties_file = None;
        let mut main_class = None;
        let mut wait = false;
        let mut load_defaults = false;
        let mut at = 0;
        while at < args.len() && args[at].starts_with('-') {
            let (option, inline) = match args[at].split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (args[at].as_str(), None),
            };
            at += 1;
            let wrong = |why| ArgumentError::Option { option: option.to_owned(), why };
            match option {
                "--verbose" | "-v" => continue,
                "--supervise" => {
                    given.insert("spark.driver.supervise".to_owned(), "true".to_owned());
                    continue;
                }
                "--load-spark-defaults" => {
                    load_defaults = true;
                    continue;
                }
                "--wait" => {
                    wait = true;
                    continue;
                }
                "--proxy-user" | "--queue" | "--kill" | "--status" => {
                    return Err(wrong("it means nothing to a dispatcher"));
                }
                _ => {}
            }
            let value = match inline {
                Some(value) => value,
                None => {
                    at += 1;
                    args.get(at - 1).cloned().ok_or_else(|| wrong("its value is missing"))?
                }
            };
            match option {
                "--master" | "--deploy-mode" => {}
                "--class" => main_class = Some(value),
                "--properties-file" => properties_file = Some(PathBuf::from(value)),
                "--conf" | "-c" => {
                    let (key, value) =
                        value.split_once('=').ok_or_else(|| wrong("write it as KEY=VALUE"))?;
                    conf.insert(key.trim().to_owned(), value.to_owned());
                }
                _ => match SETTINGS.iter().find(|(name, _)| *name == option) {
                    Some((_, key)) => {
                        given.insert((*key).to_owned(), value);
                    }
                    None => return Err(wrong("no option of spark-submit or ours has this name")),
                },
            }
        }
        let resource = args.get(at).cloned().ok_or(ArgumentError::NoApplication)?;
        let args = args[at + 1..].to_vec();
        let mut all = if load_defaults { file(None, defaults)? } else { Default::default() };
        all.extend(file(properties_file.as_deref(), defaults)?);
        // Options win over --conf, and that over files, as in spark-submit.
        all.extend(conf);
        all.extend(given);
        let python = resource.ends_with(".py") || resource.ends_with(".R");
        // A jar's manifest may name it, which Spark reads where the driver starts.
        if !python && main_class.is_none() && !resource.ends_with(".jar") {
            return Err(ArgumentError::NoClass(resource));
        }
        if !python && resource != NO_RESOURCE {
            // So that executors get it.
            let jars = all.entry("spark.jars".to_owned()).or_default();
            *jars = if jars.is_empty() { resource.clone() } else { format!("{jars},{resource}") };
        }
        all.entry("spark.app.name".to_owned()).or_insert_with(|| name(&resource, &main_class));
        let waits = all.get("spark.standalone.submit.waitAppCompletion");
        let wait = wait || waits.is_some_and(|v| v.trim() == "true");
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("SPARK_") && !name.starts_with("SPARK_LOCAL_"))
            .collect();
        let new = NewSubmission {
            resource,
            main_class,
            args,
            properties: all,
            environment,
            uploaded: Vec::new(),
        };
        Ok(Self { new, wait })
    }

    /// The dispatcher that its settings name.
    pub fn dispatcher(&self) -> Option<&str> {
        self.new.properties.get(DISPATCHER).map(|v| v.trim()).filter(|v| !v.is_empty())
    }

    /// The files of this machine that it names, each once.
    ///
    /// # Errors
    /// [`ArgumentError::NoFile`] names one that is not there.
    pub fn local_files(&self) -> Result<Vec<PathBuf>, ArgumentError> {
        let lists = FILE_LISTS.iter().filter_map(|key| self.new.properties.get(*key));
        let listed = lists.flat_map(|list| list.split(',').map(str::trim));
        let mut files = Vec::new();
        for name in std::iter::once(self.new.resource.as_str()).chain(listed) {
            let Some(path) = local(name) else { continue };
            if !path.is_file() {
                return Err(ArgumentError::NoFile(name.to_owned()));
            }
            if !files.contains(&path) {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Uploads what [`local_files`](Self::local_files) has found, and submits;
    /// returns the driver's id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(self, client: &Client, files: &[PathBuf]) -> Result<String, ClientError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut urls: BTreeMap<&Path, String> = BTreeMap::new();
            for path in files {
                urls.insert(path, client.upload(path).await?);
            }
            match client.submit(&self.with(&urls)).await {
                // Another dispatcher leads since.
                Err(ClientError::FilesGone(_)) if tries < TRIES => {}
                done => return done,
            }
        }
    }

    /// The submission with these addresses in place of the files of this machine.
    fn with(&self, urls: &BTreeMap<&Path, String>) -> NewSubmission {
        let there = |name: &str| {
            let url = local(name).and_then(|path| urls.get(path.as_path()).cloned());
            let fragment = name.split_once('#').map(|(_, f)| format!("#{f}")).unwrap_or_default();
            url.map_or_else(|| name.to_owned(), |url| url + &fragment)
        };
        let mut new = self.new.clone();
        new.resource = there(&new.resource);
        for key in FILE_LISTS {
            if let Some(list) = new.properties.get_mut(key) {
                let names: Vec<String> = list
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .map(there)
                    .collect();
                *list = names.join(",");
            }
        }
        new.uploaded = urls.values().cloned().collect();
        new
    }
}

/// The dispatcher that this file of settings names, if the file is there.
///
/// # Errors
/// [`ArgumentError::Properties`].
pub fn dispatcher_of(defaults: &Path) -> Result<Option<String>, ArgumentError> {
    let value = file(None, Some(defaults))?.remove(DISPATCHER);
    Ok(value.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()))
}

fn file(
    given: Option<&Path>,
    defaults: Option<&Path>,
) -> Result<BTreeMap<String, String>, ArgumentError> {
    let Some(path) = given.or(defaults) else { return Ok(BTreeMap::new()) };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let all = properties::read(&text);
            Ok(all.into_iter().filter(|(key, _)| key.starts_with("spark.")).collect())
        }
        Err(error) if given.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(BTreeMap::new())
        }
        Err(source) => Err(ArgumentError::Properties { path: path.to_owned(), source }),
    }
}

/// The path of a file of this machine: no scheme, or `file:`.
fn local(name: &str) -> Option<PathBuf> {
    let plain = name.split('#').next().unwrap_or(name);
    if plain.is_empty() || plain == NO_RESOURCE {
        return None;
    }
    if let Some(path) = plain.strip_prefix("file:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return Some(path.into());
    }
    let scheme = plain.split_once(':').map(|(scheme, _)| scheme);
    let is_scheme = scheme.is_some_and(|s| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    (!is_scheme).then(|| plain.into())
}

/// As Spark names an application that says nothing.
fn name(resource: &str, main_class: &Option<String>) -> String {
    let file = resource.rsplit('/').next().unwrap_or(resource);
    main_class.clone().unwrap_or_else(|| file.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<ClusterSubmit, ArgumentError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        ClusterSubmit::read(&args, None)
    }

    fn get<'a>(submit: &'a ClusterSubmit, key: &str) -> Option<&'a str> {
        submit.new.properties.get(key).map(String::as_str)
    }

    #[test]
    fn options_become_settings() {
        let submit = read(
            "--deploy-mode cluster --class a.B --conf spark.x=1=2 --driver-memory=2g --supervise \
             --jars x.jar --priority 5 -v --conf spark.driver.memory=9g app.jar --class c 7",
        )
        .unwrap();
        let new = &submit.new;
        assert_eq!((new.resource.as_str(), new.main_class.as_deref()), ("app.jar", Some("a.B")));
        assert_eq!(new.args, ["--class", "c", "7"]);
        for (key, value) in [
            ("spark.x", "1=2"),
            ("spark.driver.memory", "2g"),
            ("spark.driver.supervise", "true"),
            ("spark.jars", "x.jar,app.jar"),
            ("spark.mezz.dispatcher.priority", "5"),
            ("spark.app.name", "a.B"),
        ] {
            assert_eq!(get(&submit, key), Some(value), "{key}");
        }
        assert!(!submit.wait);
        let named_by_the_jar = read("app.jar").unwrap();
        assert_eq!(named_by_the_jar.new.main_class, None);
        assert_eq!(get(&named_by_the_jar, "spark.app.name"), Some("app.jar"));
    }

    #[test]
    fn python_needs_no_class() {
        let submit = read("--wait dir/app.py").unwrap();
        assert_eq!(get(&submit, "spark.app.name"), Some("app.py"));
        assert_eq!(get(&submit, "spark.jars"), None);
        assert!(submit.wait);
        let conf = read("--conf spark.standalone.submit.waitAppCompletion=true a.py").unwrap();
        assert!(conf.wait);
    }

    #[test]
    fn files_of_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spark-defaults.conf");
        std::fs::write(&path, "spark.a 1\nspark.b 2\nother 3\nspark.mezz.dispatcher d:7\n")
            .unwrap();
        assert_eq!(dispatcher_of(&path).unwrap().as_deref(), Some("d:7"));
        assert_eq!(dispatcher_of(&dir.path().join("none")).unwrap(), None);
        let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let submit = ClusterSubmit::read(&args("--conf spark.b=9 a.py"), Some(&path)).unwrap();
        assert_eq!((get(&submit, "spark.a"), get(&submit, "spark.b")), (Some("1"), Some("9")));
        assert_eq!((get(&submit, "other"), submit.dispatcher()), (None, Some("d:7")));
        let theirs = dir.path().join("theirs");
        std::fs::write(&theirs, "spark.b 3\n").unwrap();
        let named = format!("--properties-file {} --load-spark-defaults a.py", theirs.display());
        let submit = ClusterSubmit::read(&args(&named), Some(&path)).unwrap();
        assert_eq!((get(&submit, "spark.a"), get(&submit, "spark.b")), (Some("1"), Some("3")));
        ClusterSubmit::read(&args("a.py"), Some(&dir.path().join("none"))).unwrap();
        let named = args(&format!("--properties-file {}/none a.py", dir.path().display()));
        let error = ClusterSubmit::read(&named, Some(&path)).unwrap_err();
        assert!(error.to_string().ends_with("/none"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        for (line, said) in [
            ("--deploy-mode cluster", "give the application"),
            ("spark-internal", "--class is missing: spark-internal is neither"),
            ("--nonsense x a.py", "--nonsense: no option"),
            ("--conf x a.py", "--conf: write it as KEY=VALUE"),
            ("--name", "--name: its value is missing"),
            ("--proxy-user u a.py", "--proxy-user: it means nothing"),
        ] {
            let error = read(line).unwrap_err().to_string();
            assert!(error.starts_with(said), "{line}: {error}");
        }
    }

    #[test]
    fn which_files_are_of_this_machine() {
        for (name, path) in [
            ("a/b.py", Some("a/b.py")),
            ("/a:b/c.py", Some("/a:b/c.py")),
            ("file:/a.py", Some("/a.py")),
            ("file:///a.py#x", Some("/a.py")),
            ("local:/a.py", None),
            ("http://h/a.py", None),
            ("s3a://b/k", None),
            ("spark-internal", None),
        ] {
            assert_eq!(local(name), path.map(PathBuf::from), "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there.py");
        std::fs::write(&there, "").unwrap();
        let there = there.display();
        let submit = read(&format!("--py-files {there},http://h/x.py {there}")).unwrap();
        assert_eq!(submit.local_files().unwrap(), [PathBuf::from(there.to_string())]);
        let missing = read(&format!("--files /no/such {there}")).unwrap();
        assert!(missing.local_files().unwrap_err().to_string().starts_with("/no/such is no file"));
    }
}
