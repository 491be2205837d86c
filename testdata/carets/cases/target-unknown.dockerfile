#: option --target biuld
FROM scratch AS build
