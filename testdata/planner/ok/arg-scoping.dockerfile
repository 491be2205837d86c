#: --build-arg GIVEN=given
#: --build-arg UNDECLARED=x
ARG GLOBAL=global
ARG GIVEN=default
FROM busybox AS one
RUN echo "$GLOBAL $GIVEN $UNDECLARED"
ARG GLOBAL
ARG GIVEN
ARG LOCAL=$GLOBAL-$GIVEN
RUN echo $LOCAL
ENV LOCAL=env
RUN echo $LOCAL
FROM one
RUN echo "$GLOBAL $LOCAL"
FROM busybox
ARG LOCAL
RUN echo "$LOCAL"
COPY --from=1 /a /a
