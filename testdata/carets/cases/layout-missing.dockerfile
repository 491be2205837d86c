#: option --build-context dep=oci-layout://nowhere:latest
FROM dep
