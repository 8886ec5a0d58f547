//! Flags, variables and files: what wins, and what is refused where.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

fn flags(flags: &[&str]) -> Settings {
    Cli::try_parse_from([&["test"], flags].concat())
        .unwrap()
        .settings
}

const FILE: &str = r#"
image = "/opt/semirt"
image-arg = ["--store", "s3"]
image-env = { RUST_LOG = "info" }
launcher = ["simtee", "run", "a b", "--"]
log-dir = "logs"
endpoints = 8
slots = 2
memory-mib = 256
idle-timeout = 1.5
"#;

#[test]
fn a_file_describes_a_whole_configuration() {
    let config = Settings::parse(FILE).unwrap().into_config().unwrap();
    assert_eq!(config.platform.launcher, ["simtee", "run", "a b", "--"]);
    assert_eq!(config.pool.image.args, ["--store", "s3"]);
    assert_eq!(config.pool.image.env["RUST_LOG"], "info");
    assert_eq!(config.platform.user_memory_mib, 8 * 256);
    assert_eq!(config.pool.keep_warm, Duration::from_millis(1500));
}

#[test]
fn flags_win_over_the_file_and_lists_are_not_mixed() {
    let flags = flags(&[
        "--slots",
        "3",
        "--image-arg=--x",
        "--launcher",
        "a 'b c'",
        "--launcher",
        "-d",
    ]);
    let config = flags
        .over(Settings::parse(FILE).unwrap())
        .into_config()
        .unwrap();
    assert_eq!((config.pool.slots, config.pool.endpoints), (3, 8));
    assert_eq!(config.pool.image.args, ["--x"]);
    assert_eq!(config.platform.launcher, ["a", "b c", "-d"]);
}

#[test]
fn a_bad_file_is_refused_with_the_line_at_fault() {
    for (line, why) in [
        ("slotz = 2", "unknown field `slotz`"),
        ("slots = 0", "nonzero"),
        ("slots = \"two\"", "invalid type"),
        ("idle-timeout = -1", "positive number of seconds"),
        ("listen = \"here\"", "socket address"),
        ("launcher = 'a \"b'", "no end"),
        ("image-env = { 'A=B' = \"x\" }", "'='"),
        ("slots = 2 3", "expected"),
    ] {
        let error = Settings::parse(&format!("image = \"x\"\n\n{line}\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 3") && error.contains(line), "{error}");
        assert!(error.contains(why), "{why:?} is not in: {error}");
    }
}

#[test]
fn bad_flags_are_refused() {
    for bad in [
        &["--slots", "0"][..],
        &["--idle-timeout", "0"],
        &["--idle-timeout", "inf"],
        &["--image-env", "NOVALUE"],
        &["--launcher", "'open"],
        &["--listen", "localhost"],
    ] {
        assert!(
            Cli::try_parse_from([&["test"], bad].concat()).is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn what_must_be_given_is_named_when_it_is_not() {
    assert_eq!(flags(&[]).into_config(), Err(ConfigError::Missing("image")));
    assert_eq!(
        flags(&["--image", "x"]).into_config(),
        Err(ConfigError::Missing("log-dir"))
    );
}

#[test]
fn openwhisks_interface_needs_a_file_for_its_key() {
    let given = [
        "--image",
        "x",
        "--log-dir",
        "y",
        "--openwhisk-listen",
        "127.0.0.1:0",
    ];
    assert_eq!(
        flags(&given).into_config(),
        Err(ConfigError::Missing("openwhisk-auth"))
    );
    let under = Settings::parse("openwhisk-auth = \"auth\"\nopenwhisk-image = \"i\"").unwrap();
    let config = flags(&given).over(under).into_config().unwrap();
    let openwhisk = config.openwhisk.unwrap();
    assert_eq!(
        (openwhisk.auth, openwhisk.image.as_str()),
        ("auth".into(), "i")
    );
    // Without an address there is none.
    let none = flags(&["--image", "x", "--log-dir", "y", "--openwhisk-auth", "auth"]);
    assert_eq!(none.into_config().unwrap().openwhisk, None);
}

#[test]
fn a_short_maximum_shortens_the_default_timeout() {
    let config = flags(&["--image", "x", "--log-dir", "y", "--max-timeout", "5"])
        .into_config()
        .unwrap();
    assert_eq!(config.http.default_timeout, Duration::from_secs(5));
    let both = flags(&[
        "--image",
        "x",
        "--log-dir",
        "y",
        "--max-timeout",
        "5",
        "--timeout",
        "6",
    ]);
    assert_eq!(both.into_config(), Err(ConfigError::Timeouts));
}
