//! `--output`: what was built goes where it was asked for.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::anyhow;
use executor::{ArchiveFormat, Built, ExecutorError, ExportOptions, PlatformAnnotation, Session};
use image::{ImageRef, Platform, compress, document::Descriptor};

use super::{execute::failed, job::Job, report::FinishedImage};
use crate::{
    failure::{Failure, OrFail, Result},
    values::{Annotation, AnnotationKind, Compression, Dest, Output, OutputKind},
};

/// Writes all outputs. Returns the image of the last one that is an image.
///
/// # Errors
///
/// Fails where one of them cannot be written, or an annotation has no place.
pub fn write(job: &Job, session: &Session, images: &[Built]) -> Result<Option<FinishedImage>> {
    let mut finished = None;
    for output in &job.outputs {
        let mut names = job.names.clone();
        for name in &output.names {
            let name = ImageRef::parse(name).or_input()?.with_default_tag();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let options = ExportOptions { names: names.clone(), ..options(job, output)? };
        check_annotations(&options, images)?;
        let is_split = output.platform_split.unwrap_or(images.len() > 1 || job.index_of_one);
        let target = match output.kind {
            OutputKind::Image => Some(image_output(session, images, output, &names, &options)?),
            OutputKind::Docker | OutputKind::Oci if output.dest.is_none() => {
                Some(session.keep(images, &names, &options).map_err(failed)?.target)
            }
            OutputKind::Docker | OutputKind::Oci => {
                let export = session.export(images, &options).map_err(failed)?;
                let target = export.root_descriptor().or_failed()?;
                let format = match output.kind {
                    OutputKind::Docker => ArchiveFormat::Docker,
                    _ => ArchiveFormat::Oci,
                };
                match &output.dest {
                    Some(Dest::Path(folder)) if !output.tar => {
                        session.write_layout(export, &names, folder).map_err(failed)?;
                    }
                    dest => {
                        to_file(dest.as_ref(), |out| {
                            session.write_archive(export, &names, format, out)
                        })?;
                    }
                }
                Some(target)
            }
            OutputKind::Local => {
                let Some(Dest::Path(folder)) = &output.dest else {
                    return Err(Failure::input(anyhow!("`type=local` needs a folder"))
                        .hint("add `dest=FOLDER`"));
                };
                session.write_folder(images, folder, is_split).map_err(failed)?;
                None
            }
            OutputKind::CacheOnly => None,
            OutputKind::Tar => {
                to_file(output.dest.as_ref(), |out| session.write_tar(images, is_split, out))?;
                None
            }
        };
        if let (Some(target), Some(first)) = (target, images.first()) {
            finished = Some(FinishedImage { target, config: first.id.0, names });
        }
    }
    Ok(finished)
}

/// An annotation for a platform needs an image of that platform.
fn check_annotations(options: &ExportOptions, images: &[Built]) -> Result<()> {
    let annotations = options.annotations.iter().chain(&options.descriptor_annotations);
    for PlatformAnnotation { platform, key, .. } in annotations {
        let Some(platform) = platform.as_ref().map(Platform::normalized) else { continue };
        if !images.iter().any(|it| it.platform.normalized() == platform) {
            let built: Vec<_> = images.iter().map(|it| it.platform.to_string()).collect();
            let message = anyhow!("annotation `{key}` is for `{platform}`, which was not built");
            return Err(
                Failure::input(message).hint(format!("what was built is {}", built.join(", ")))
            );
        }
    }
    Ok(())
}

fn image_output(
    session: &Session,
    images: &[Built],
    output: &Output,
    names: &[ImageRef],
    options: &ExportOptions,
) -> Result<Descriptor> {
    if !output.push {
        return Ok(session.keep(images, names, options).map_err(failed)?.target);
    }
    let options = ExportOptions {
        compression: options.compression.or(Some(compress::Compression::GZIP)),
        ..options.clone()
    };
    session.export_and_push(images, &options, names).map_err(failed)?;
    let kept = if output.push_by_digest { &[] } else { names };
    let record = session.keep(images, kept, &options).map_err(failed)?;
    Ok(record.target)
}

/// The registries that an output says may speak plain HTTP, or have any certificate.
pub(crate) fn insecure(job: &Job) -> Vec<String> {
    let outputs: Vec<_> = job.outputs.iter().filter(|it| it.insecure && it.push).collect();
    if outputs.is_empty() {
        return Vec::new();
    }
    let names = outputs.iter().flat_map(|it| &it.names).filter_map(|it| ImageRef::parse(it).ok());
    names.chain(job.names.iter().cloned()).map(|it| it.domain).collect()
}

/// How the layers of the first output that compresses them come out.
pub(crate) fn compression(job: &Job) -> Result<Option<compress::Compression>> {
    for output in &job.outputs {
        let is_pushed = matches!(output.kind, OutputKind::Image) && output.push;
        let default = is_pushed.then_some(compress::Compression::GZIP);
        let found = match output.kind {
            OutputKind::Local | OutputKind::Tar | OutputKind::CacheOnly => None,
            _ => options(job, output)?.compression.or(default),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn options(job: &Job, output: &Output) -> Result<ExportOptions> {
    let is_archive =
        matches!(output.kind, OutputKind::Oci | OutputKind::Docker) && output.dest.is_some();
    let compression = match output.compression {
        Some(Compression::Uncompressed) => Some(compress::Compression::Uncompressed),
        Some(Compression::Gzip) => Some(match output.compression_level {
            Some(level) => compress::Compression::Gzip { level },
            None => compress::Compression::GZIP,
        }),
        Some(Compression::Zstd) => Some(match output.compression_level {
            Some(level) => compress::Compression::Zstd { level },
            None => compress::Compression::ZSTD,
        }),
        None => is_archive.then_some(compress::Compression::GZIP),
    };
    let mut options = ExportOptions {
        compression,
        force_compression: output.force_compression,
        as_index: job.index_of_one,
        push_by_digest: output.push_by_digest,
        ..ExportOptions::default()
    };
    options.docker_media_types = output.oci_media_types == Some(false);
    options.attestations_as_images = output.oci_artifact == Some(false);
    let has_index = job.requests.len() > 1 || job.index_of_one || job.provenance.is_some();
    for annotation in job.annotations.iter().chain(&output.annotations) {
        for (kind, platform) in &annotation.targets {
            add_annotation(&mut options, annotation, *kind, platform.as_deref(), has_index)?;
        }
    }
    Ok(options)
}

fn add_annotation(
    options: &mut ExportOptions,
    annotation: &Annotation,
    kind: AnnotationKind,
    platform: Option<&str>,
    has_index: bool,
) -> Result<()> {
    let Annotation { key, value, .. } = annotation;
    let platform = platform.map(|it| Platform::parse(it, &Platform::host())).transpose();
    let (key, value) = (key.clone(), value.clone());
    let of_platform = PlatformAnnotation {
        platform: platform.or_input()?,
        key: key.clone(),
        value: value.clone(),
    };
    match kind {
        AnnotationKind::Manifest => options.annotations.push(of_platform),
        AnnotationKind::ManifestDescriptor => options.descriptor_annotations.push(of_platform),
        AnnotationKind::Index | AnnotationKind::IndexDescriptor if !has_index => {
            let message = anyhow!("annotation `{key}` is for an index, and one image has none");
            return Err(Failure::input(message)
                .hint("build for several platforms, or annotate the manifest"));
        }
        AnnotationKind::Index => drop(options.index_annotations.insert(key, value)),
        AnnotationKind::IndexDescriptor => {
            options.index_descriptor_annotations.insert(key, value);
        }
    }
    Ok(())
}

/// Writes to standard output, or to a file that gets its name when it is whole.
pub(crate) fn to_file(
    dest: Option<&Dest>,
    write: impl FnOnce(&mut dyn Write) -> std::result::Result<(), ExecutorError>,
) -> Result<()> {
    match dest {
        None | Some(Dest::Stdout) => write(&mut io::stdout().lock()).map_err(failed),
        // A device or a pipe is written to, and not put aside.
        Some(Dest::Path(path))
            if fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir()) =>
        {
            let failed_at = |source: io::Error| ExecutorError::Write { path: path.clone(), source };
            let mut file = fs::OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|source| failed(failed_at(source)))?;
            write(&mut file).map_err(failed)
        }
        Some(Dest::Path(path)) => {
            let folder =
                path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let failed_at = |source: io::Error| ExecutorError::Write { path: path.clone(), source };
            let mut file = tempfile::Builder::new()
                .prefix(".kiln-")
                .tempfile_in(folder)
                .map_err(|source| failed(failed_at(source)))?;
            write(file.as_file_mut()).map_err(|error| {
                Failure::failed(anyhow!(
                    "cannot write `{}`: {}",
                    path.display(),
                    executor::message(&error)
                ))
            })?;
            readable(file.as_file()).map_err(|source| failed(failed_at(source)))?;
            file.persist(path).map_err(|error| failed(failed_at(error.error)))?;
            Ok(())
        }
    }
}

fn readable(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}
