//! Builds a `CommandInfo`.

use mezz_proto::v1;

/// Builds a `CommandInfo`: a command, its environment and the files it needs.
///
/// ```
/// use mezz_sdk::build::CommandBuilder;
///
/// let command = CommandBuilder::argv(["python3", "job.py"])
///     .env("MODE", "fast")
///     .uri("https://example.org/job.py")
///     .build();
/// assert_eq!(command.arguments, ["python3", "job.py"]);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CommandBuilder(v1::CommandInfo);

impl CommandBuilder {
    /// A line for `/bin/sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        Self(v1::CommandInfo { shell: Some(true), value: Some(line.into()), ..Default::default() })
    }

    /// A program and its arguments; the first is the program, looked up in `PATH`.
    pub fn argv(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let arguments: Vec<String> = argv.into_iter().map(Into::into).collect();
        Self(v1::CommandInfo {
            shell: Some(false),
            value: arguments.first().cloned(),
            arguments,
            ..Default::default()
        })
    }

    /// One more environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let environment = self.0.environment.get_or_insert_default();
        environment.variables.push(v1::environment::Variable {
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        });
        self
    }

    /// A file to fetch into the sandbox; archives are unpacked.
    pub fn uri(self, uri: impl Into<String>) -> Self {
        self.fetch(v1::command_info::Uri { value: uri.into(), ..Default::default() })
    }

    /// A program to fetch into the sandbox; it is made executable, and not
    /// unpacked.
    pub fn executable(self, uri: impl Into<String>) -> Self {
        self.fetch(v1::command_info::Uri {
            value: uri.into(),
            executable: Some(true),
            extract: Some(false),
            ..Default::default()
        })
    }

    /// A file to fetch, with every setting.
    pub fn fetch(mut self, uri: v1::command_info::Uri) -> Self {
        self.0.uris.push(uri);
        self
    }

    /// The user to run as, in place of the framework's.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.0.user = Some(user.into());
        self
    }

    /// The message.
    pub fn build(self) -> v1::CommandInfo {
        self.0
    }
}

impl From<CommandBuilder> for v1::CommandInfo {
    fn from(builder: CommandBuilder) -> Self {
        builder.0
    }
}

impl From<v1::CommandInfo> for CommandBuilder {
    fn from(command: v1::CommandInfo) -> Self {
        Self(command)
    }
}
