FROM busybox
WORKDIR rel
WORKDIR /abs/./x/..
WORKDIR $HOME/sub
USER app:staff
WORKDIR /owned
WORKDIR /
