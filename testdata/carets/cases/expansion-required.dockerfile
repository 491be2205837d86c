FROM scratch
WORKDIR /srv/${HOME_DIR:?set it}
