//! Settings of operators and data of users, in files that somebody else may have written.

use clap::Parser;
use sesemi_cli::connection::ConnectionArgs;
use sesemi_cli::demo::data;
use sesemi_fnpacker::settings::Settings;

use super::file;

/// Reads the bytes as rows of data. Every row has a value for each column, and all are numbers.
pub fn csv_rows(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    let Ok(rows) = data::parse_csv(text) else {
        return;
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    assert_eq!(rows.len() + 1, lines.count());
    let columns = |row: &data::Row| row.features.len() + usize::from(row.label.is_some());
    for row in &rows {
        assert_eq!(columns(row), columns(&rows[0]));
        assert!(row.features.iter().all(|value| value.is_finite()));
    }
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Reads the bytes as each program's settings file. What is accepted is within the bounds that the program names.
pub fn settings_files(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "settings.toml", bytes);
    let path = path.to_str().unwrap();

    let command = Command::try_parse_from(["sesemi", "--stack", path]).unwrap();
    if let Ok(connection) = command.connection.resolve() {
        let _ = (connection.keyservice(), connection.gateway());
        let _ = (connection.store(), connection.code(None));
    }

    use sesemi_semirt::config::{Cli, CliCommand};
    let flags = ["semirt", "serve", "--config", path];
    let CliCommand::Serve(args) = Cli::try_parse_from(flags).unwrap().command;
    if let Ok(config) = args.resolve() {
        assert!((1..=256).contains(&config.slots) && config.queue <= 65536);
        assert!((1..=256).contains(&config.engine_threads));
        assert!(config.model_memory >= 1 << 20);
    }

    use sesemi_keyservice::config::{Cli as KeyCli, CliCommand as KeyCommand};
    let flags = ["keyservice", "serve", "--config", path];
    let KeyCommand::Serve(args) = KeyCli::try_parse_from(flags).unwrap().command else {
        panic!("another command than serve")
    };
    if let Ok(config) = args.resolve() {
        assert!((1..=3600).contains(&config.lease_seconds));
    }

    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(settings) = Settings::parse(text)
    {
        assert_eq!(settings.clone().over(Settings::default()), settings);
    }
}

pub(crate) fn csv_seeds() -> Vec<Vec<u8>> {
    let rows: String = data::HELD_OUT.split_inclusive('\n').take(3).collect();
    vec![rows.into_bytes(), b"a,label\n1.5,1\n\n-2e3,0\n".to_vec()]
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let id = "03".repeat(32);
    let connection = format!(
        "keyservice = \"127.0.0.1:7400\"\nkeyservice-id = \"{id}\"\nkeyservice-code = \"{id}\"\n\
         semirt-code = \"{id}\"\ngateway = \"http://127.0.0.1:7402\"\nstore = \"models\"\n"
    );
    let semirt = format!(
        "listen = \"127.0.0.1:8080\"\nkeyservice = \"127.0.0.1:7400\"\nkeyservice-id = \"{id}\"\n\
         keyservice-code = \"{id}\"\nstore = \"models\"\nslots = 4\nqueue = 16\nengine-threads = 2\n\
         model-memory-mib = 512\n[trust]\nendorsements = \"collateral.json\"\n"
    );
    let keyservice =
        "listen = \"127.0.0.1:7400\"\nstate = \"keys\"\n[trust]\npolicy = \"p.toml\"\n";
    let fnpacker = "listen = \"127.0.0.1:8082\"\nlauncher = \"simtee run --\"\nimage = \"semirt\"\n\
                    image-arg = [\"serve\"]\n";
    vec![
        connection.into_bytes(),
        semirt.into_bytes(),
        keyservice.into(),
        fnpacker.into(),
    ]
}
