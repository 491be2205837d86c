//! Loads a small image and runs through the commands that list, show, name and remove it.

use std::{fs, path::Path, process::Command};

use image::Digest;
use serde_json::{Value, json};

#[test]
fn an_image_is_loaded_listed_shown_named_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    layout(&folder.path().join("layout"));
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(args)
            .current_dir(folder.path())
            .env_clear()
            .env("HOME", folder.path())
            .env("KILN_ROOT", folder.path().join("store"))
            .output()
            .expect("kiln runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    let ok = |args: &[&str]| {
        let (out, err, status) = run(args);
        assert_eq!((err.as_str(), status), ("", Some(0)), "{args:?}: {out}");
        out
    };

    assert_eq!(ok(&["load", "-i", "layout"]), "Loaded image: app:1\n");
    assert_eq!(ok(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}"]), "app:1 10.2kB\n");
    assert_eq!(ok(&["images", "-q", "nothing"]), "");
    assert_eq!(
        ok(&["images", "--filter", "label=a=b", "--filter", "reference=ap*", "-q"]).lines().count(),
        1
    );
    assert_eq!(ok(&["images", "--filter", "label=a=c", "-q"]), "");

    let inspected: Value = serde_json::from_str(&ok(&["inspect", "app:1"])).expect("JSON");
    assert_eq!(inspected[0]["RepoTags"], json!(["app:1"]));
    assert_eq!(inspected[0]["Config"]["Cmd"], json!(["/run"]));
    assert_eq!(
        ok(&["inspect", "-f", "{{.Config.Cmd}} {{json .Os}}", "app:1"]),
        "[/run] \"linux\"\n"
    );
    let absent = "{{.Config.User}}|{{.Config.Volumes}}|{{.Config.Entrypoint}}|{{.Config.Healthcheck}}|{{.Author}}";
    assert_eq!(ok(&["inspect", "-f", absent, "app:1"]), "|map[]|[]|<nil>|\n");
    let labels = "{{range $name, $value := .Config.Labels}}{{$name}}={{$value}}{{end}}";
    assert_eq!(ok(&["inspect", "-f", labels, "app:1"]), "a=b\n");
    let (_, err, status) = run(&["inspect", "-f", "{{.Config.Usr}}", "app:1"]);
    assert!(err.contains("`.Config.Usr`") && status == Some(2), "{err}");
    let history = ok(&["history", "--format", "{{.CreatedBy}}|{{.Size}}", "app:1"]);
    assert_eq!(history, "CMD [\"/run\"]|0B\nCOPY run / # buildkit|10.2kB\n");

    ok(&["tag", "app:1", "registry.example/team/app"]);
    assert_eq!(ok(&["images", "-q"]).lines().count(), 1);
    let id = ok(&["images", "-q", "--no-trunc"]);
    let (_, err, status) = run(&["rmi", id.trim()]);
    assert!(err.contains("several names") && status == Some(1), "{err}");
    let (_, err, _) = run(&["inspect", "ap:1"]);
    assert!(err.contains("did you mean `app:1`?"), "{err}");
    assert_eq!(ok(&["rmi", "app:1"]), "Untagged: app:1\n");
    let container = folder.path().join("store/containers").join("c".repeat(64));
    fs::create_dir_all(&container).expect("made");
    let state = json!({ "id": "c".repeat(64), "image": "app:1", "image_id": inspected[0]["Id"], "command": ["/run"],
        "created": 1, "remove": false, "status": 0, "finished": 2 });
    fs::write(container.join("state.json"), state.to_string()).expect("written");
    fs::write(container.join("lock"), "").expect("written");
    let (_, err, status) = run(&["rmi", "registry.example/team/app"]);
    assert!(err.contains("is used by container `cccccccccccc`") && status == Some(1), "{err}");
    // An image that a container is made of is in use, also when the container has ended.
    let images = |it: &str| {
        let lines = ok(&["system", "df", "--format", "json"]);
        let line = lines.lines().find(|it| it.contains("Images")).expect("a line").to_owned();
        serde_json::from_str::<Value>(&line).expect("JSON")[it].as_u64().expect("a number")
    };
    assert_eq!((images("TotalCount"), images("Active"), images("Reclaimable")), (1, 1, 0));
    assert!(ok(&["du", "-v"]).contains("registry.example/team/app"));
    ok(&["image", "prune", "-a", "-f"]);
    assert_eq!(ok(&["images", "-q"]).lines().count(), 1);
    fs::remove_dir_all(&container).expect("removed");
    assert_eq!((images("Active"), images("Reclaimable")), (0, 10_240));
    for kept in ["label=a=c", "label!=a", "until=900000h", "dangling=true"] {
        ok(&["image", "prune", "-a", "-f", "--filter", kept]);
        assert_eq!(ok(&["images", "-q"]).lines().count(), 1, "{kept}");
    }
    let (_, err, status) = run(&["builder", "prune", "-f", "--filter", "label=a"]);
    assert!(err.contains("`label=a` is not known") && status == Some(2), "{err}");
    let table = ok(&["images", "--format", "table {{.Repository}}\t{{.Size}}"]);
    assert_eq!(table.lines().next(), Some("REPOSITORY                  SIZE"));
    assert_eq!(ok(&["images", "-q", "--filter", "until=1h"]).lines().count(), 1);

    assert!(ok(&["system", "check"]).ends_with("nothing is damaged\n"));
    let blob = folder.path().join("store/oci/blobs/sha256").join(&id.trim()["sha256:".len()..]);
    fs::write(&blob, "{}").expect("damaged");
    let (out, err, status) = run(&["system", "check", "--format", "json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((report["Sound"].as_bool(), status, err.as_str()), (Some(false), Some(1), ""));
    assert_eq!(report["Problems"][0]["Kind"], "blob");
    assert_eq!(report["Problems"][0]["UsedBy"][0], "image `registry.example/team/app:latest`");
    let repaired = ok(&["system", "check", "--repair"]);
    assert!(repaired.contains("repaired: image"), "{repaired}");
    assert_eq!(ok(&["images", "-q"]), "");
    ok(&["system", "check"]);

    fs::create_dir_all(&container).expect("made");
    fs::write(container.join("state.json"), state.to_string()).expect("written");
    fs::write(container.join("lock"), "").expect("written");
    ok(&["load", "-i", "layout"]);
    ok(&["tag", "app:1", "registry.example/team/app"]);
    ok(&["rmi", "app:1"]);
    let removed = ok(&["rmi", "--force", "registry.example/team/app"]);
    assert_eq!(removed, format!("Untagged: registry.example/team/app:latest\nDeleted: {id}"));
    assert_eq!(ok(&["images", "-q"]), "");
    assert!(ok(&["system", "prune", "--force"]).contains("Total reclaimed space: "));
}

/// Writes an OCI layout with one image of one layer.
fn layout(folder: &Path) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("made");
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("written");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    // A tar of nothing, with the padding that tar itself writes.
    let tar = vec![0_u8; 10_240];
    let layer = put("application/vnd.oci.image.layer.v1.tar", &tar);
    let platform = image::Platform::host();
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "created": "2026-01-02T03:04:05Z",
        "config": { "Cmd": ["/run"], "Labels": { "a": "b" } },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        "history": [
            { "created_by": "COPY run / # buildkit" },
            { "created_by": "CMD [\"/run\"]", "empty_layer": true },
        ],
    });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer] });
    let mut manifest = put(manifest_type, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/app:1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(folder.join("index.json"), index.to_string()).expect("written");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}
