//! The examples are what they say: the good ones are clean, each bad one is refused with the words in its head.

use anyhow::Result;
use flowforge_tests::install::{program, repository};
use std::path::{Path, PathBuf};
use std::process::Command;

fn yaml_files(folder: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(repository().join(folder))? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

fn lint(file: &Path, params: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(program("flowforge")?);
    command.arg("lint").arg("-f").arg(file);
    for param in params {
        command.args(["-p", param]);
    }
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

#[test]
fn the_good_examples_are_clean() {
    for (file, params) in [
        ("examples/basic/workflow.yaml", &[][..]),
        ("examples/roles/workflow.yaml", &[][..]),
        ("examples/training/workflow.yaml", &["image=my/train:1", "workers=4", "lr=0.0003"]),
    ] {
        let (code, text) = lint(&repository().join(file), params).expect("lint runs");
        assert_eq!(code, Some(0), "{file}: {text}");
    }
}

#[test]
fn each_bad_example_is_refused_with_the_words_in_its_head() {
    let files = yaml_files("examples/bad").expect("the folder");
    assert!(files.len() >= 15, "only {} files", files.len());
    for file in files {
        let content = std::fs::read_to_string(&file).expect("readable");
        let expected: Vec<&str> = content.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
        assert!(!expected.is_empty(), "{}: no `# expect:` line", file.display());
        let (code, text) = lint(&file, &[]).expect("lint runs");
        assert_eq!(code, Some(1), "{}: {text}", file.display());
        for words in expected {
            assert!(text.contains(words), "{}: {words:?} is not in\n{text}", file.display());
        }
        let problems = text.lines().filter(|line| !line.starts_with("  fix: ")).count();
        let fixes = text.lines().filter(|line| line.starts_with("  fix: ")).count();
        assert_eq!(problems, fixes, "{}: a problem without a fix\n{text}", file.display());
    }
}
