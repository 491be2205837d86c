FROM golang AS build
RUN make
FROM scratch
COPY --from=build /out /
COPY --from=0 /out2 /
COPY --from=nginx:alpine /etc/nginx /nginx
COPY --from=scratch / /nothing
